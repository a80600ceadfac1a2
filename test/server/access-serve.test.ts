import { once } from "node:events";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { hashOf } from "../../server/access/credentials.ts";
import { loadConfig } from "../../server/config/load-config.ts";
import { Command } from "./cli-support.ts";
import { testDirectory } from "./support.ts";
import { allRights } from "./tokens.ts";

const dockerfile = readFileSync(new URL("../../Dockerfile", import.meta.url), "utf8");
const [, started = "[]"] = /^CMD (\[.*\])$/m.exec(dockerfile) ?? [];
/** As the Docker image starts it, on a free port. */
const EVERYWHERE = (JSON.parse(started) as string[]).map((argument) => argument.replace(":8080", ":0"));
const TOKEN = /rpmsg_[A-Za-z0-9_-]{43}/g;
const ADDRESS = /^ +(http:\/\/127\.0\.0\.1:\d+)\/#ticket=(rpmsgt_[A-Za-z0-9_-]{43})$/m;

/** A bridge that others can reach, and what it says to people. */
async function reachable(...flags: string[]) {
  const bridge = Command.start([...EVERYWHERE, ...flags], {
    environment: { RPMSG_BRIDGE_LOG_LEVEL: "trace" },
  });
  const { port } = new URL(await bridge.url());
  return { bridge, url: `http://127.0.0.1:${port}` };
}

describe("where others can reach the bridge, and no token is configured", () => {
  test("one is made, and shown once with an address that opens once; nothing else of the run has a secret", async () => {
    expect(EVERYWHERE).toEqual(["serve", "--listen", "0.0.0.0:0"]);
    const { bridge, url } = await reachable();
    await bridge.says("#ticket=");
    const shown = bridge.stderr;
    const [token = ""] = shown.match(TOKEN) ?? [];
    const [, base, ticket = ""] = ADDRESS.exec(shown) ?? [];
    expect(base).toBe(url);

    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    const refused = await fetch(`${url}/api/v1/endpoints`);
    expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([
      401,
      'Bearer realm="rpmsg-bridge"',
    ]);
    const answers: string[] = [await refused.text()];
    const ask = async (path: string, bearer: string, method = "GET") => {
      const response = await fetch(url + path, { method, headers: { authorization: `Bearer ${bearer}` } });
      const body = await response.text();
      answers.push(`${JSON.stringify([...response.headers])} ${body}`);
      return { status: response.status, body };
    };
    const session = await ask("/api/v1/sessions", ticket, "POST");
    expect(session.status).toBe(201);
    answers.pop();
    const { token: made } = JSON.parse(session.body) as { token: string };
    expect((await ask("/api/v1/sessions", ticket, "POST")).status).toBe(401);
    for (const bearer of [token, made]) {
      expect((await ask("/api/v1/guests", bearer)).status).toBe(200);
      expect((await ask("/metrics", bearer)).status).toBe(200);
      for (const path of ["/nothing", "/api/v1/endpoints?x=1", "/ws/v1/demo/echo", "/%ff"])
        await ask(path, bearer);
      for (const protocols of [["rpmsg.v1.raw"], ["rpmsg.v1.none"], []]) {
        const all = [...protocols, `rpmsg.bearer.${bearer}`];
        const socket = new WebSocket(`${url.replace("http", "ws")}/ws/v1/demo/echo`, all);
        socket.on("error", () => {});
        socket.on("upgrade", ({ headers }) => answers.push(JSON.stringify(headers)));
        socket.on("unexpected-response", (_request, response) => {
          response.on("data", (part: Buffer) => answers.push(part.toString()));
          response.on("end", () => socket.emit("done"));
        });
        socket.on("open", () => socket.emit("done"));
        await once(socket, "done");
        if (protocols[0] === "rpmsg.v1.raw") expect(socket.protocol).toBe("rpmsg.v1.raw");
        socket.terminate();
      }
    }
    // The command line shows it everywhere.
    const environment = { RPMSG_BRIDGE_URL: url, RPMSG_BRIDGE_TOKEN: token };
    for (const args of [
      ["ls"],
      ["guests"],
      ["info", "demo/echo"],
      ["send", "demo/echo", "hello", "--wait"],
    ]) {
      const finished = await Command.run(args, { environment });
      expect([args, finished.code]).toEqual([args, 0]);
      answers.push(finished.stdout, finished.stderr);
    }
    const watch = Command.start(["watch"], { environment });
    await watch.line();
    const barred = await Command.run(["ls", "--url", url]);
    expect([barred.code, barred.stderr]).toEqual([1, expect.stringContaining("(unauthorized)")]);

    const { stdout, stderr } = await bridge.kill("SIGTERM");
    const all = answers.join("\n");
    for (const secret of [token, ticket, made]) {
      expect(all).not.toContain(secret);
      expect(stdout).not.toContain(secret);
      expect(stderr.split(secret).length - 1).toBe(secret === made ? 0 : 1);
    }
  });

  test("--no-auth lets everybody in, and the log says so", async () => {
    const { bridge, url } = await reachable("--no-auth");
    expect((await fetch(`${url}/api/v1/guests`)).status).toBe(200);
    const { stderr } = await bridge.kill("SIGTERM");
    expect(stderr).toContain('"no-access-control"');
    expect(stderr).not.toMatch(TOKEN);
  });

  test("--read-only holds for the token that is made", async () => {
    const { bridge, url } = await reachable("--read-only");
    await bridge.says("#ticket=");
    const [token = ""] = bridge.stderr.match(TOKEN) ?? [];
    const sent = await Command.run(["send", "demo/echo", "x", "--url", url, "--token", token]);
    expect([sent.code, sent.stderr]).toEqual([1, expect.stringContaining("(read-only)")]);
  });
});

test("with tokens in the configuration none is made, and theirs is asked for on the loopback interface too", async () => {
  const token = allRights();
  const path = join(testDirectory(), "bridge.yaml");
  writeFileSync(path, JSON.stringify({ tokens: [token.config] }));
  const bridge = Command.start(["serve", "--listen", "127.0.0.1:0", "--config", path]);
  const url = await bridge.url();
  expect((await fetch(`${url}/api/v1/guests`)).status).toBe(401);
  expect((await fetch(`${url}/api/v1/guests`, { headers: token.headers })).status).toBe(200);
  expect((await bridge.kill("SIGTERM")).stderr).not.toMatch(TOKEN);
});

test.each(["0600", "660", "0666"])(
  "a Unix socket has the mode %s when it is there, and needs no token",
  async (mode) => {
    const directory = testDirectory();
    const [path, config] = [join(directory, "bridge.sock"), join(directory, "bridge.yaml")];
    writeFileSync(config, JSON.stringify({ listen: `unix:${path}`, socketMode: mode }));
    const bridge = Command.start(["serve", "--config", config]);
    await bridge.url();
    expect(statSync(path).mode & 0o777).toBe(Number.parseInt(mode, 8));
    const socket = new WebSocket(`ws+unix://${path}:/ws/v1/demo/echo`);
    await once(socket, "open");
    socket.terminate();
  },
);

describe("rpmsg-bridge token", () => {
  test("prints a token once, and lines that the configuration takes, without it", async () => {
    const { code, stdout, stderr } = await Command.run(["token", "--name", "panel"]);
    const [token = "", ...more] = stderr.match(TOKEN) ?? [];
    expect([code, more, stdout.match(TOKEN)]).toEqual([0, [], null]);
    const path = join(testDirectory(), "bridge.yaml");
    const start = async (lines: string) => {
      writeFileSync(path, `listen: 127.0.0.1:0\n${lines}`);
      const url = await Command.start(["serve", "--config", path]).url();
      return { RPMSG_BRIDGE_URL: url, RPMSG_BRIDGE_TOKEN: token };
    };
    const send = ["send", "demo/echo", "hi", "--wait"];
    // It may do nothing yet.
    const first = await Command.run(send, { environment: await start(stdout) });
    expect([first.code, first.stderr]).toEqual([1, expect.stringContaining("unknown")]);
    const granted = stdout.replace("read: []", 'read: ["*/*"]').replace("write: []", 'write: ["*/*"]');
    expect((await Command.run(send, { environment: await start(granted) })).stdout).toBe("hi\n");
  });

  test("--another makes lines that go behind those of the first one", async () => {
    const path = join(testDirectory(), "bridge.yaml");
    const made = [];
    for (const flags of [["one"], ["two", "--another"], ["three", "--another"]]) {
      made.push(await Command.run(["token", "--name", ...flags]));
    }
    writeFileSync(path, made.map(({ stdout }) => stdout).join(""));
    const { tokens } = await loadConfig({ config: path }, {});
    const hashes = made.map(({ stderr }) => hashOf((stderr.match(TOKEN) ?? [])[0] ?? "").toString("hex"));
    const none = { list: [], read: [], write: [], announce: [], admin: [] };
    expect(tokens).toEqual(
      ["one", "two", "three"].map((name, i) => ({ name, hash: `sha256:${hashes[i]}`, rights: none })),
    );
  });

  test("with --json prints all of it; a name that is none is a mistake", async () => {
    const { stdout } = await Command.run(["token", "--json"]);
    expect(JSON.parse(stdout)).toEqual({
      token: expect.stringMatching(/^rpmsg_/),
      name: "client",
      hash: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
    });
    expect((await Command.run(["token", "--name", "a b"])).code).toBe(2);
  });
});
