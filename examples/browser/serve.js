// A bridge, and a web server for pages of your own that talk to it:
//
//   node examples/browser/serve.js [PORT]
//
// The pages come from another origin than the bridge, as yours will: the bridge lets them in because `origins` has it.
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { startBridge } from "rpmsg-bridge";

const pages = ["console.html", "sensor.html"];

const server = createServer(({ url = "/" }, response) => {
  const page = pages.find((name) => url.split("?")[0] === `/${name}`);
  if (page === undefined) {
    response.writeHead(404).end("not here\n");
    return;
  }
  response.setHeader("content-type", "text/html; charset=utf-8");
  createReadStream(new URL(page, import.meta.url)).pipe(response);
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1");
await once(server, "listening");
const origin = `http://127.0.0.1:${server.address().port}`;

// The emulated guest "demo"; for a virtual machine: { guests: { vm0: { kind: "vhost-user", path: "/run/rpmsg/vm0.sock" } } }
const bridge = await startBridge({ listen: "127.0.0.1:0", origins: [origin] });
for (const page of pages) console.log(`${origin}/${page}?bridge=${encodeURIComponent(bridge.url)}`);

await once(process, "SIGINT");
server.close();
server.closeAllConnections();
await bridge.close();
