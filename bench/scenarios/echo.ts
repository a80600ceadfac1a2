import { startBenchBridge } from "../bridge.ts";
import { measureEcho } from "../echo-load.ts";
import { startProcess } from "../harness.ts";
import type { BenchOptions, Running, Scenario, Shape } from "../scenario.ts";

const SHAPES: readonly (Shape & { short?: boolean })[] = [
  { clients: 16, size: 64, inFlight: 16, short: true },
  { clients: 16, size: 496, inFlight: 16 },
  { clients: 1, size: 64, inFlight: 64 },
  { clients: 256, size: 496, inFlight: 2 },
  { clients: 16, size: 64, inFlight: 1 },
  { clients: 1, size: 64, inFlight: 1 },
];

/** Servers that echo without a guest, and what they stand for. */
const PEERS = {
  naive: "bench/load/naive-echo-server.js",
  batched: "bench/load/batched-echo-server.js",
  ceiling: "bench/load/ceiling-server.js",
};

/**
 * Echo through the bridge (client, bridge, guest in a process of its own over vhost-user, and back), beside a plain
 * `ws` echo, one that batches its writes, and what a socket gives at most.
 */
async function start(shape: Shape, options: BenchOptions): Promise<Running> {
  const bridge = await startBenchBridge({ vm: {}, polled: { poll: "adaptive" } });
  const guests = { bridge: "vm", "poll: adaptive": "polled" };
  const running = await Promise.all(
    Object.entries(guests).map(async ([name, guest]) => {
      const { pid } = await bridge.runGuests([{ socket: bridge.socketOf(guest) }]);
      const watch = { Server: bridge.process.pid, Guest: pid };
      const target = { port: bridge.port, path: `/ws/v1/${guest}/echo`, watch };
      return [name, () => measureEcho(shape, target, options)] as const;
    }),
  );
  const peers = await Promise.all(
    Object.entries(PEERS).map(async ([name, entry]) => [name, await startProcess(entry)] as const),
  );
  const peerVariants = peers.map(([name, { ready, pid }]) => {
    const target = { port: Number(ready["port"]), path: "/", watch: { Server: pid } };
    return [name, () => measureEcho(shape, target, options)] as const;
  });
  return {
    variants: Object.fromEntries([...peerVariants, ...running]),
    async stop() {
      await Promise.all([bridge.stop(), ...peers.map(([, each]) => each.stop())]);
    },
  };
}

export const echoes = SHAPES.map(({ short = false, ...shape }): Scenario => {
  const { clients, size, inFlight } = shape;
  const latency = clients === 1 && inFlight === 1;
  return {
    name: `echo-${clients}x${size}x${inFlight}`,
    title: `Echo, ${clients} ${clients === 1 ? "client" : "clients"} x ${size} bytes x ${inFlight} in flight`,
    figure: latency
      ? { name: "p50us", label: "microseconds to the answer, median" }
      : { name: "perSecond", label: "messages a second" },
    short,
    start: (options) => start(shape, options),
  };
});
