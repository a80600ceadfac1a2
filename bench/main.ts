/**
 * `npm run bench [-- --quick] [--only=isolation]`: what the hot paths cost, as ratios to a baseline in the same run.
 */
import { benchDeviceQueue } from "./device-queue.ts";
import { describeMachine, formatTable } from "./harness.ts";
import { benchIsolation } from "./isolation.ts";
import type { Scenario } from "./relay.ts";
import { benchRelay } from "./relay.ts";

const SCENARIOS: readonly Scenario[] = [
  { clients: 16, size: 64, inFlight: 16 },
  { clients: 16, size: 496, inFlight: 16 },
  { clients: 1, size: 64, inFlight: 64 },
  { clients: 256, size: 496, inFlight: 2 },
  { clients: 1, size: 64, inFlight: 1 },
];

const quick = process.argv.includes("--quick");
const options = quick ? { rounds: 2, measureMs: 700 } : { rounds: 7, measureMs: 2000 };

console.log(`${describeMachine()}\n`);

async function reportQueue(): Promise<void> {
  console.log("Device side of a queue, ns a message, and ratio to copying the bytes alone\n");
  const queueRows: Record<string, string>[] = [];
  for (const size of [64, 496]) {
    const { memcpy, request, response } = await benchDeviceQueue(size);
    queueRows.push({
      bytes: String(size),
      memcpy: memcpy.toFixed(1),
      "request queue": request.toFixed(1),
      "to memcpy": (request / memcpy).toFixed(2),
      "response queue": response.toFixed(1),
      "to memcpy ": (response / memcpy).toFixed(2),
    });
  }
  console.log(`${formatTable(queueRows)}\n`);
}

async function reportRelay(): Promise<void> {
  console.log(
    "Echo through the bridge and a guest in its own process (vhost-user), beside a plain ws echo server\n",
  );
  const relayRows: Record<string, string>[] = [];
  for (const each of await benchRelay(quick ? SCENARIOS.slice(0, 1) : SCENARIOS, options)) {
    const { scenario, naive, bridge, throughputRatio, throughputRange, latencyRatio, generatorCpu } = each;
    const [least, most] = throughputRange;
    relayRows.push({
      "clients x bytes x in flight": `${scenario.clients} x ${scenario.size} x ${scenario.inFlight}`,
      "ws msg/s": naive.perSecond.toFixed(0),
      "bridge msg/s": bridge.perSecond.toFixed(0),
      "throughput ratio (range)": `${throughputRatio.toFixed(2)} (${least.toFixed(2)} to ${most.toFixed(2)})`,
      "ws p50": `${naive.p50us.toFixed(0)} us`,
      "bridge p50": `${bridge.p50us.toFixed(0)} us`,
      "p50 ratio": latencyRatio.toFixed(2),
      "generator CPU": `${(generatorCpu * 100).toFixed(0)} %`,
    });
  }
  console.log(formatTable(relayRows));
}

async function reportIsolation(): Promise<void> {
  console.log("Echo with isolation, beside the same bridge's guest without\n");
  const rows: Record<string, string>[] = [];
  for (const each of await benchIsolation(quick ? SCENARIOS.slice(0, 1) : SCENARIOS, options)) {
    const { scenario, plain, isolated, throughputRatio, throughputRange, latencyRatio } = each;
    const [least, most] = throughputRange;
    rows.push({
      "clients x bytes x in flight": `${scenario.clients} x ${scenario.size} x ${scenario.inFlight}`,
      "none msg/s": plain.perSecond.toFixed(0),
      "process msg/s": isolated.perSecond.toFixed(0),
      "throughput ratio (range)": `${throughputRatio.toFixed(2)} (${least.toFixed(2)} to ${most.toFixed(2)})`,
      "none p50": `${plain.p50us.toFixed(0)} us`,
      "process p50": `${isolated.p50us.toFixed(0)} us`,
      "p50 ratio": latencyRatio.toFixed(2),
    });
  }
  console.log(formatTable(rows));
}

if (!process.argv.includes("--only=isolation")) {
  await reportQueue();
  await reportRelay();
}
await reportIsolation();
