import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startBenchBridge } from "../bridge.ts";
import { startProcess } from "../harness.ts";
import type { FanOutOptions, FanOutResult } from "../load/fan-out-clients.ts";
import type { BenchOptions, Running, Sample, Scenario } from "../scenario.ts";

const CLIENTS = 100;
/** All clients have this local address, and with it what the guest sends there. */
const LOCAL = 5000;

async function measure(load: FanOutOptions): Promise<Sample> {
  const clients = await startProcess("bench/load/fan-out-clients.js", [JSON.stringify(load)], {
    readyTimeoutMs: 60_000,
  });
  await clients.stop();
  const { perSecond, errors, cpu, watchedCpu } = clients.ready as unknown as FanOutResult;
  if (errors > 0) throw new Error(`${load.path}: ${errors} messages did not follow on the one before`);
  const [cpuServer = Number.NaN, cpuSource = Number.NaN] = watchedCpu;
  return { perSecond, cost: (cpuServer * 1e6) / perSecond, cpuGenerator: cpu, cpuServer, cpuSource };
}

/** One stream of a guest to all clients, beside a loop of `ws.send` over a stream from another process. */
async function start(size: number, { measureMs }: BenchOptions): Promise<Running> {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-bench-"));
  const socket = join(directory, "source.sock");
  const bridge = await startBenchBridge({ vm: {} });
  const guest = await bridge.runGuests([{ socket: bridge.socketOf("vm"), stream: true }]);
  const loop = await startProcess("bench/load/send-loop-server.js", [socket]);
  const source = await startProcess("bench/load/stream-source.js", [socket]);
  const load = { clients: CLIENTS, size, measureMs };
  const path = `/ws/v1/vm/stream?share=shared&local=${LOCAL}&slow=pause`;
  return {
    variants: {
      loop: () =>
        measure({ ...load, port: Number(loop.ready["port"]), path: "/", watchPids: [loop.pid, source.pid] }),
      bridge: () => measure({ ...load, port: bridge.port, path, watchPids: [bridge.process.pid, guest.pid] }),
    },
    async stop() {
      await Promise.all([bridge.stop(), source.stop(), loop.stop()]);
      rmSync(directory, { recursive: true });
    },
  };
}

export const fanOuts = [64, 496].map(
  (size): Scenario => ({
    name: `fan-out-${size}`,
    title: `A guest's stream to ${CLIENTS} clients, ${size} bytes`,
    figure: { name: "perSecond", label: "messages a second, all clients" },
    short: size === 64,
    start: (options) => start(size, options),
  }),
);
