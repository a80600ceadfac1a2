import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { EmulatedGuest } from "../../../guest/index.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, until } from "../../support/figures.ts";
import { left } from "../grown.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const KILLS = { test: 3, short: 20, full: 200 };

export const scenario: Scenario = {
  fault: "the process of an isolated guest is killed (SIGKILL), as one is whose memory file shrinks (SIGBUS)",
  passes: "only that guest is gone, its clients are told 4001, the next process serves it, nothing is left",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const bridge = await BridgeProcess.start(
    (directory) => ({
      guests: {
        vm: { kind: "vhost-user", path: join(directory, "vm.sock"), isolation: "process" },
        other: { kind: "emulated" },
      },
    }),
    // Each kill is a line.
    { onLog() {} },
  );
  const problems: string[] = [];
  const back: number[] = [];
  const guest = new EmulatedGuest();
  // It comes back by itself, as a monitor does that reconnects.
  const connection = guest.connect(join(bridge.directory, "vm.sock"), { onError() {} });
  try {
    const open = (name: string) =>
      until(`the echo of ${name}`, () =>
        EchoClient.open(bridge.url, `/ws/v1/${name}/echo`).catch(() => undefined),
      );
    const other = await open("other");
    let client = await open("vm");
    let before = bridge.outside();
    let probed = await bridge.probe();
    for (let i = 1; i <= KILLS[scale]; i++) {
      await client.echo(`${i}`);
      const start = performance.now();
      process.kill(await until("the guest's process", () => childOf(bridge.pid)), "SIGKILL");
      const code = await client.closed;
      if (code !== 4001) problems.push(`kill ${i}: the client was closed with ${code}`);
      await other.echo(`${i}`);
      client = await open("vm");
      await client.echo("again");
      back.push(performance.now() - start);
      const { generation } = await bridge.guest("vm");
      if (generation !== i + 1) problems.push(`kill ${i}: generation ${generation}`);
      if (i !== 1) continue;
      // When connections over HTTP are over: they may be closed a little later.
      probed = await bridge.probe();
      before = bridge.outside();
    }
    const after = await until("what it was", () => {
      const now = bridge.outside();
      return now.descriptors <= before.descriptors && now.guestMappings <= before.guestMappings
        ? now
        : undefined;
    }).catch(() => bridge.outside());
    if (after.descriptors > before.descriptors || after.guestMappings > before.guestMappings)
      problems.push(`left: ${JSON.stringify(after)}, after the first kill ${JSON.stringify(before)}`);
    problems.push(...(await left(bridge, probed)));
    for (const { socket } of [client, other]) socket.terminate();
    return {
      measured:
        `${count(KILLS[scale])} kills: to the first echo of a new client ${latencies(back)}; descriptors ` +
        `${before.descriptors} and ${after.descriptors}, mappings ${before.guestMappings} and ${after.guestMappings}`,
      problems,
    };
  } finally {
    connection.close();
    await bridge.stop();
  }
}

/** The only process that the bridge has started; undefined where there is none. */
function childOf(parent: number): number | undefined {
  for (const task of readdirSync(`/proc/${parent}/task`)) {
    const children = readFileSync(`/proc/${parent}/task/${task}/children`, "latin1").trim();
    if (children !== "") return Number(children.split(" ")[0]);
  }
  return undefined;
}
