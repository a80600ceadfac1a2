import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StartedProcess, StartOptions } from "./harness.ts";
import { startProcess } from "./harness.ts";
import type { GuestOptions } from "./load/guests.ts";

/** Guests of the bridge, as its configuration has them; a vhost-user guest without a path gets one. */
type GuestConfigs = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** A bridge in a process of its own, and what else belongs to it. */
export interface BenchBridge {
  readonly process: StartedProcess;
  readonly port: number;
  readonly url: string;
  /** The socket of a vhost-user guest. */
  socketOf(guest: string): string;
  /** Runs emulated guests in one process of its own, until the bridge stops; resolves when all are attached. */
  runGuests(guests: readonly GuestOptions[]): Promise<StartedProcess>;
  stop(): Promise<void>;
}

/** Starts `rpmsg-bridge serve` with guests behind vhost-user sockets. */
export async function startBenchBridge(
  guests: GuestConfigs,
  options: StartOptions = {},
): Promise<BenchBridge> {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-bench-"));
  const socketOf = (guest: string) => join(directory, `${guest}.sock`);
  const configs = Object.entries(guests).map(([name, config]) => [
    name,
    { kind: "vhost-user", path: socketOf(name), ...config },
  ]);
  const file = join(directory, "bench.yaml");
  // JSON is YAML.
  writeFileSync(file, JSON.stringify({ logLevel: "warn", guests: Object.fromEntries(configs) }));
  const bridge = await startProcess(
    "server/main.js",
    ["serve", "--config", file, "--listen", "127.0.0.1:0"],
    options,
  );
  const others: StartedProcess[] = [];
  const url = String(bridge.ready["url"]);
  return {
    process: bridge,
    url,
    port: Number(new URL(url).port),
    socketOf,
    async runGuests(list) {
      const started = await startProcess("bench/load/guests.js", [JSON.stringify(list)], {
        readyTimeoutMs: 60_000,
      });
      others.push(started);
      return started;
    },
    async stop() {
      await Promise.all(others.map((each) => each.stop()));
      await bridge.stop();
      rmSync(directory, { recursive: true });
    },
  };
}
