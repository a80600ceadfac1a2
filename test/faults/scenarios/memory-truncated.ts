import { join } from "node:path";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, until } from "../../support/figures.ts";
import { TruncatableGuest } from "../../support/truncatable-guest.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const TIMES = { test: 2, short: 10, full: 100 };

export const scenario: Scenario = {
  fault:
    "a frontend truncates its memory file, which cannot be sealed, while messages pass; the guest is isolated",
  passes:
    "only that guest dies, of SIGBUS, after a warning; its clients are told 4001, and the next frontend is served",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const log: string[] = [];
  const bridge = await BridgeProcess.start(
    (directory) => ({
      logLevel: "info",
      guests: {
        vm: { kind: "vhost-user", path: join(directory, "vm.sock"), isolation: "process" },
        other: { kind: "emulated" },
      },
    }),
    { onLog: (line) => log.push(line) },
  );
  const logged = (text: string) => log.filter((line) => line.includes(text)).length;
  const problems: string[] = [];
  const deaths: number[] = [];
  let guest: TruncatableGuest | undefined;
  try {
    const other = await EchoClient.open(bridge.url, "/ws/v1/other/echo");
    for (let i = 1; i <= TIMES[scale]; i++) {
      guest = await TruncatableGuest.attach(
        join(bridge.directory, "vm.sock"),
        "service",
        join(bridge.directory, "memory"),
      );
      const client = await until("the service is there", () =>
        EchoClient.open(bridge.url, "/ws/v1/vm/service").catch(() => undefined),
      );
      const start = performance.now();
      guest.truncate();
      client.socket.send("a message");
      guest.kick();
      const code = await client.closed;
      deaths.push(performance.now() - start);
      if (code !== 4001) problems.push(`time ${i}: the client was closed with ${code}`);
      await guest.closed;
      guest.close();
      guest = undefined;
      await other.echo(`${i}`);
      await until("the end is in the log", () => (logged('"signal":"SIGBUS"') === i ? true : undefined));
    }
    if (logged("memory-not-sealed") !== TIMES[scale])
      problems.push(`${logged("memory-not-sealed")} warnings of memory that is not sealed`);
    const { generation } = await bridge.guest("other");
    if (generation !== 1) problems.push(`the other guest is of generation ${generation}`);
    other.socket.terminate();
    return {
      measured:
        `${count(TIMES[scale])} times: ${logged('"signal":"SIGBUS"')} processes of the guest ended with SIGBUS, the bridge and ` +
        `the other guest went on; clients told after ${latencies(deaths)}`,
      problems,
    };
  } finally {
    guest?.close();
    await bridge.stop();
  }
}
