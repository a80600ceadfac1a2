import { join } from "node:path";
import { EmulatedGuest, echo } from "../../../guest/index.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, until } from "../../support/figures.ts";
import { left } from "../grown.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const RESETS = { test: 10, short: 100, full: 1000 };
const SERVICES = ["echo", "other"];

export const scenario: Scenario = {
  fault: "guest reset (emulated, over vhost-user) while clients talk",
  passes:
    "endpoints listed again with the new generation, no ghosts, clients told 4001, no message of an earlier boot arrives, no descriptor, mapping or timer left",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const bridge = await BridgeProcess.start((directory) => ({
    guests: { vm: { kind: "vhost-user", path: join(directory, "vm.sock") } },
  }));
  const problems: string[] = [];
  /** Boots that the services were made for: one that a message of an earlier one comes to is told of it. */
  let boot = 0;
  const guest = new EmulatedGuest({
    services: Object.fromEntries(
      SERVICES.map((name) => [
        name,
        (context) => {
          const made = boot;
          const service = echo(context);
          return {
            onMessage: (src, bytes, offset, length) => {
              const text = Buffer.from(bytes.subarray(offset, offset + length)).toString();
              if (text !== `${made}`) problems.push(`boot ${made} got a message of boot ${text}`);
              return service.onMessage(src, bytes, offset, length);
            },
          };
        },
      ]),
    ),
    onError: (error) => problems.push(error.message),
  });
  const connection = guest.connect(join(bridge.directory, "vm.sock"), {
    onError: (error) => problems.push(error.message),
  });
  const back: number[] = [];
  try {
    await connection.attached();
    const open = (name: string) =>
      until(`${name} is there`, () =>
        EchoClient.open(bridge.url, `/ws/v1/vm/${name}`).catch(() => undefined),
      );
    let before = bridge.outside();
    let probed = await bridge.probe();
    for (; boot < RESETS[scale]; ) {
      const clients = await Promise.all(SERVICES.map(open));
      for (const client of clients) await client.echo(`${boot}`);
      // What is on its way at the reset is of the old boot.
      for (const client of clients) for (let i = 0; i < 100; i++) client.socket.send(Buffer.from(`${boot}`));
      const start = performance.now();
      boot++;
      await guest.reboot();
      for (const client of clients) {
        const code = await client.closed;
        if (code !== 4001) problems.push(`a client of boot ${boot - 1} was closed with ${code}`);
      }
      const first = await open("echo");
      await first.echo(`${boot}`);
      back.push(performance.now() - start);
      first.socket.close(1000);
      await first.closed;
      const listed = await until("all endpoints are listed", async () => {
        const endpoints = await bridge.endpoints();
        return endpoints.length === SERVICES.length ? endpoints : undefined;
      });
      const { generation } = await bridge.guest("vm");
      for (const each of listed) {
        if (each.generation !== generation) problems.push(`${each.name} is of generation ${each.generation}`);
      }
      if (generation !== boot + 1) problems.push(`generation ${generation} after ${boot} resets`);
      if (boot !== 1) continue;
      probed = await bridge.probe();
      before = bridge.outside();
    }
    // Connections over HTTP that are over may be closed a little later.
    const settled = () => (bridge.outside().descriptors <= before.descriptors ? true : undefined);
    await until("as many descriptors as before", settled).catch(() => {});
    const after = bridge.outside();
    if (after.guestMappings > before.guestMappings) problems.push("mappings of earlier boots are left");
    if (after.descriptors > before.descriptors)
      problems.push(`descriptors: ${after.descriptors}, ${before.descriptors} after the first reset`);
    problems.push(...(await left(bridge, probed)));
    return {
      measured:
        `${count(boot)} resets: to the first echo of a new client ${latencies(back)}; descriptors ` +
        `${before.descriptors} and ${after.descriptors}, guest mappings ${before.guestMappings} and ${after.guestMappings}`,
      problems,
    };
  } finally {
    connection.close();
    await bridge.stop();
  }
}
