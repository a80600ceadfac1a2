import { join } from "node:path";
import { Limits } from "../../../schemas/limits.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, until } from "../../support/figures.ts";
import type { Abuse } from "../abuses.ts";
import { abuses, ECHO, unreadAbuses } from "../abuses.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

/** Clients of each kind: over TCP, and over a Unix socket, where of each some 64 KiB wait in the bridge. */
const CLIENTS = { test: [5, 5], short: [100, 100], full: [500, 200] } as const;
/** Times that a client may take, in milliseconds; the defaults at full scale. */
const TIMES = { test: 500, short: 2000, full: undefined };
/** Those of pings where answers are waited for: the clients that are served have to keep to them, too. */
const PINGS = { pingInterval: 2500, pongTimeout: 2000 };
/** Bytes of heap and buffers more than before, at most. */
const MARGIN = 20 * 2 ** 20;
/**
 * Milliseconds beyond what the limit says: hundreds of connections end in one turn, the bridge collects its garbage each
 * time that it is asked for its figures, and clients and bridge have two cores between them.
 */
const GRACE = 5000;
/** When it is given up. */
const PATIENCE = 90_000;

export const scenario: Scenario = {
  fault:
    "one-byte fragments, ping floods, heads and bodies that trickle, half upgrades, connections that say nothing, closes, " +
    "pings that are not answered, a file that is not read, pipelined event streams, files, answers, upgrades, garbage; none " +
    "of the clients closes by itself",
  passes:
    "every connection is ended by the bridge, for the limit that it runs into, at most 5 s later than that says: heads, " +
    "half upgrades and silence headersTimeout and 1 s (how often Node looks), bodies requestTimeout and 1 s, fragments " +
    "and closes closeTimeout, pings not answered pingInterval and pongTimeout, a file not read responseTimeout, ping " +
    "floods and what is pipelined at once; no descriptor, event stream or waiting byte left of them, heap and buffers 20 MiB more at most, " +
    "others are served",
  run,
};

/** What was seen of a bridge. */
interface Seen {
  readonly times: string[];
  /** Bytes of heap and buffers more than before, at most. */
  readonly most: number;
  readonly problems: string[];
  readonly slow: string[];
}

async function run(scale: Scale): Promise<Outcome> {
  const time = TIMES[scale];
  const times =
    time === undefined
      ? {}
      : { headersTimeout: time, requestTimeout: time, responseTimeout: time, closeTimeout: time };
  const [overTcp, overUnix] = CLIENTS[scale];
  const demo = { kind: "emulated" } as const;
  const tcp = await BridgeProcess.start(() => ({ guests: { demo }, limits: times }));
  const network = await abused(tcp, abuses, overTcp, Limits.parse(times));
  const limits = { ...times, ...(time !== undefined && PINGS) };
  const unix = await BridgeProcess.start((directory) => ({
    listen: `unix:${join(directory, "web.sock")}`,
    guests: { demo },
    limits,
  }));
  const local = await abused(unix, unreadAbuses, overUnix, Limits.parse(limits));
  const most = Math.max(network.most, local.most);
  return {
    measured:
      `${count(overTcp)} clients of each kind: ended after ${network.times.join(", ")}; over a Unix socket ` +
      `${count(overUnix)}: ${local.times.join(", ")}; ` +
      `heap and buffers ${mebibytes(most)} MiB more at most`,
    problems: [...network.problems, ...local.problems],
    slow: [...network.slow, ...local.slow],
  };
}

/** One kind after another. The bridge is stopped afterwards. */
async function abused(
  bridge: BridgeProcess,
  kinds: Readonly<Record<string, Abuse>>,
  each: number,
  limits: Limits,
): Promise<Seen> {
  try {
    const isThere = async () => (await bridge.guest("demo")).state === "attached" || undefined;
    await until("the guest", isThere);
    const isListed = async () => (await bridge.endpoints()).some(({ path }) => path === ECHO) || undefined;
    await until("the endpoint", isListed);
    const good = await EchoClient.open(bridge.url, ECHO);
    const connections = await settledDescriptors(bridge);
    const isAlone = () => bridge.outside().descriptors <= connections;
    // What is loaded and allocated once is there before anything is compared.
    for (const abuse of Object.values(kinds)) (await abuse.begin(bridge.url)).socket.destroy();
    await until("the end of the first ones", () => isAlone() || undefined);
    const sizeOf = ({ heapUsed, external }: Awaited<ReturnType<typeof bridge.probe>>) => heapUsed + external;
    const before = sizeOf(await bridge.probe());
    const seen = { times: [] as string[], most: 0, problems: [] as string[], slow: [] as string[] };
    for (const [name, { begin, again, counted, within }] of Object.entries(kinds)) {
      const already = await bridge.metric(counted);
      const clients = await Promise.all(Array.from({ length: each }, () => begin(bridge.url)));
      const start = performance.now();
      let ended = 0;
      let size = 0;
      await until(
        name,
        async () => {
          for (const client of clients) if (!client.closed) again?.(client);
          await good.echo(name);
          ended = (await bridge.metric(counted)) - already;
          // Also a turn of the bridge, in which it closes the connection of that question.
          size = Math.max(size, sizeOf(await bridge.probe()) - before);
          // What the bridge has, and not what the clients hear: who does not read hears nothing.
          return (ended >= each && isAlone()) || undefined;
        },
        PATIENCE,
      ).catch(() => {
        const open = bridge.outside().descriptors - connections;
        seen.problems.push(
          `${name}: ${ended} of ${each} ended as ${counted}, ${open} descriptors still open`,
        );
      });
      const took = performance.now() - start;
      if (ended > each) seen.problems.push(`${name}: ${ended} ended as ${counted}, of ${each}`);
      if (took > within(limits) + GRACE)
        seen.slow.push(`${name}: ended after ${seconds(took)} s, not ${seconds(within(limits) + GRACE)} s`);
      if (size > MARGIN) seen.problems.push(`${mebibytes(size)} MiB more with ${name}`);
      seen.most = Math.max(seen.most, size);
      seen.times.push(`${name} ${seconds(took)} s`);
      for (const { socket } of clients) socket.destroy();
    }
    await bridge.health();
    let left = "";
    await until(
      "that nothing is left of them",
      async () => {
        const streams = await bridge.metric("rpmsg_bridge_event_streams");
        const waiting = await bridge.metric('rpmsg_bridge_waiting_bytes{for="clients"}');
        const { descriptors } = bridge.outside();
        const size = sizeOf(await bridge.probe()) - before;
        left = `${streams} event streams, ${waiting} bytes waiting, ${descriptors} of ${connections} descriptors, ${size} bytes`;
        return (streams === 0 && waiting === 0 && isAlone() && size < MARGIN) || undefined;
      },
      30_000,
    ).catch((error: unknown) => seen.problems.push(`${(error as Error).message}: ${left}`));
    return seen;
  } finally {
    await bridge.stop("SIGKILL");
  }
}

/** How many it has: twice the same, and it had a turn between the looks, in which it closes what has ended. */
function settledDescriptors(bridge: BridgeProcess): Promise<number> {
  let last = -1;
  return until("the same number of descriptors twice", async () => {
    await bridge.probe();
    const { descriptors } = bridge.outside();
    const same = descriptors === last;
    last = descriptors;
    return same ? descriptors : undefined;
  });
}

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(1);
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
