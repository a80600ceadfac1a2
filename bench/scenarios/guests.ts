import type { BenchBridge } from "../bridge.ts";
import { startBenchBridge } from "../bridge.ts";
import type { EchoTarget } from "../echo-load.ts";
import { measureEcho } from "../echo-load.ts";
import type { BenchOptions, Running, Scenario, Shape } from "../scenario.ts";

const ENDPOINTS = 1000;
const GUESTS = 64;

interface Target {
  readonly bridge: BenchBridge;
  /** The process of its guests. */
  readonly guests: { readonly pid: number };
  readonly path: string;
}

function targetOf({ bridge, guests, path }: Target): EchoTarget {
  return { port: bridge.port, path, watch: { Server: bridge.process.pid, Guest: guests.pid } };
}

async function compare(
  shape: Shape,
  options: BenchOptions,
  targets: Readonly<Record<string, Target>>,
): Promise<Running> {
  const variants = Object.entries(targets).map(
    ([name, target]) => [name, () => measureEcho(shape, targetOf(target), options)] as const,
  );
  const bridges = new Set(Object.values(targets).map(({ bridge }) => bridge));
  return {
    variants: Object.fromEntries(variants),
    async stop() {
      await Promise.all([...bridges].map((bridge) => bridge.stop()));
    },
  };
}

/** Whether a message costs more where a guest has many endpoints: 16 clients, each at another one. */
const manyEndpoints: Scenario = {
  name: "endpoints-1000",
  title: `A guest with ${ENDPOINTS} endpoints beside one with one`,
  figure: { name: "cost", label: "microseconds of the bridge's CPU a message" },
  async start(options) {
    const one = await startBenchBridge({ vm: {} });
    const many = await startBenchBridge({ vm: {} });
    const guest = await one.runGuests([{ socket: one.socketOf("vm") }]);
    const guests = await many.runGuests([{ socket: many.socketOf("vm"), echoes: ENDPOINTS }]);
    return compare({ clients: 16, size: 64, inFlight: 16 }, options, {
      one: { bridge: one, guests: guest, path: "/ws/v1/vm/echo" },
      many: { bridge: many, guests, path: "/ws/v1/vm/echo{n}" },
    });
  },
};

/** Whether a message costs more where a bridge has many guests: with all the load on one, and with some on each. */
const manyGuests: Scenario = {
  name: "guests-64",
  title: `A bridge with ${GUESTS} guests beside one with one`,
  figure: { name: "cost", label: "microseconds of the bridge's CPU a message" },
  async start(options) {
    const names = Array.from({ length: GUESTS }, (_, i) => `vm${i}`);
    const one = await startBenchBridge({ vm0: {} });
    const many = await startBenchBridge(Object.fromEntries(names.map((name) => [name, {}])));
    const guest = await one.runGuests([{ socket: one.socketOf("vm0") }]);
    const guests = await many.runGuests(names.map((name) => ({ socket: many.socketOf(name) })));
    return compare({ clients: GUESTS, size: 64, inFlight: 4 }, options, {
      one: { bridge: one, guests: guest, path: "/ws/v1/vm0/echo" },
      "one of 64": { bridge: many, guests, path: "/ws/v1/vm0/echo" },
      "all 64": { bridge: many, guests, path: "/ws/v1/vm{n}/echo" },
    });
  },
};

export const guestScenarios = [manyEndpoints, manyGuests];
