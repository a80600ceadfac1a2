import { startBenchBridge } from "../bridge.ts";
import { measureEcho } from "../echo-load.ts";
import type { Scenario, Shape } from "../scenario.ts";

const SHAPES: readonly Shape[] = [
  { clients: 16, size: 496, inFlight: 16 },
  { clients: 1, size: 64, inFlight: 1 },
];

/** What `isolation: process` costs: two guests of one bridge, of which one is isolated. */
export const isolations = SHAPES.map((shape): Scenario => {
  const { clients, size, inFlight } = shape;
  return {
    name: `isolation-${clients}x${size}x${inFlight}`,
    title: `An isolated guest, ${clients} x ${size} bytes x ${inFlight} in flight`,
    figure:
      clients === 1
        ? { name: "p50us", label: "microseconds to the answer, median" }
        : { name: "perSecond", label: "messages a second" },
    async start(options) {
      const bridge = await startBenchBridge({ plain: {}, isolated: { isolation: "process" } });
      const variant = async (name: string) => {
        const guest = await bridge.runGuests([{ socket: bridge.socketOf(name) }]);
        const watch = { Server: bridge.process.pid, Guest: guest.pid };
        return () => measureEcho(shape, { port: bridge.port, path: `/ws/v1/${name}/echo`, watch }, options);
      };
      return {
        variants: { plain: await variant("plain"), isolated: await variant("isolated") },
        stop: () => bridge.stop(),
      };
    },
  };
});
