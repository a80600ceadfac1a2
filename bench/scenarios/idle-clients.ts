import { startBenchBridge } from "../bridge.ts";
import { measureEcho } from "../echo-load.ts";
import { startProcess } from "../harness.ts";
import type { Scenario } from "../scenario.ts";

const CLIENTS = 10_000;
/** Each is a descriptor of the bridge and one of its clients' process; Node raises the soft limit to the hard one. */
const DESCRIPTORS = CLIENTS + 200;

/** What clients that do nothing cost: memory, and whether a message of others costs more among them. */
export const idleClients: Scenario = {
  name: "idle-10000",
  title: `${CLIENTS} idle clients beside one`,
  figure: { name: "cost", label: "microseconds of the bridge's CPU a message" },
  missing() {
    const limit = process.report.getReport() as { userLimits?: { open_files?: { hard: number | string } } };
    const most = Number(limit.userLimits?.open_files?.hard);
    if (Number.isNaN(most) || most >= DESCRIPTORS) return undefined;
    return `a process may have ${most} descriptors, and ${DESCRIPTORS} are needed: ulimit -n`;
  },
  async start(options) {
    const start = async (clients: number) => {
      const bridge = await startBenchBridge({ vm: {} }, { probe: true });
      const guest = await bridge.runGuests([{ socket: bridge.socketOf("vm") }]);
      const url = `${bridge.url.replace("http", "ws")}/ws/v1/vm/echo`;
      const shape = { clients: 16, size: 64, inFlight: 16 };
      const watch = { Server: bridge.process.pid, Guest: guest.pid };
      const target = { port: bridge.port, path: "/ws/v1/vm/echo", watch };
      const before = await bridge.process.ask("figures");
      const idle = await startProcess("bench/load/idle-clients.js", [JSON.stringify({ url, clients })], {
        readyTimeoutMs: 120_000,
      });
      const after = await bridge.process.ask("figures");
      const kibEach = (after.rss - before.rss) / 1024 / clients;
      const heapKibEach = (after.heapUsed - before.heapUsed) / 1024 / clients;
      return {
        async measure() {
          const echo = await measureEcho(shape, target, options);
          return clients === 1 ? echo : { ...echo, kibEach, heapKibEach };
        },
        stop: () => Promise.all([bridge.stop(), idle.stop()]),
      };
    };
    const one = await start(1);
    const many = await start(CLIENTS);
    return {
      variants: { one: () => one.measure(), many: () => many.measure() },
      async stop() {
        await Promise.all([one.stop(), many.stop()]);
      },
    };
  },
};
