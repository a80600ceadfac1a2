import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { GuestConnection } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";
import type { Probed } from "../support/bridge-process.ts";
import { BridgeProcess } from "../support/bridge-process.ts";
import { until } from "../support/figures.ts";
import type { MixedConfig } from "../support/mixed-run.ts";
import { mixedRun } from "../support/mixed-run.ts";
import type { MixedFigures } from "../support/mixed-sums.ts";
import { Random } from "../support/random.ts";
import { Rest } from "../support/rest.ts";
import type { Slope } from "./slope.ts";
import { slopeOf } from "./slope.ts";
import { Visitors } from "./visitors.ts";

const MiB = 2 ** 20;
/** Milliseconds between two looks under load. */
const SAMPLE = 5_000;
/** So many of those, and then the load rests. */
const SAMPLES = 4;
/** Milliseconds after which what was on its way has come, or waits for as long as it may, and the guest was reset. */
const REST = 4_000;
/** Share of the time that is no part of the slope: caches fill, code is compiled, pools grow to their size. */
const WARM_UP = 0.25;
/**
 * The collector's space for young objects has the size from the start that it would grow to, by 30 MiB, when there is
 * much to do.
 */
const FLAGS = ["--min-semi-space-size=16"];
/** Attachments before the load, which fill the log of events: each is 14 of them, and 4,352 are kept. */
const ATTACHMENTS = 400;

/** Resident memory under load, as it is. */
export interface Sample {
  /** Seconds from the start of the load. */
  at: number;
  /** MiB. */
  resident: number;
}

/** What is left while the load rests, when everything is given back that can be. */
export interface RestSample {
  at: number;
  /** Resident memory, in MiB like the others. */
  rss: number;
  heap: number;
  /** Buffers and other memory of V8's objects. */
  external: number;
}

export interface SoakResult {
  minutes: number;
  seed: number;
  /** MiB an hour, from the end of the warm-up on. */
  rss: Slope;
  /** The same of resident memory under load, as it is. */
  loaded: Slope;
  /** Heap and buffers: the part of it that is in use. */
  inUse: Slope;
  descriptors: { before: number; most: number; after: number };
  resources: { before: Record<string, number>; after: Record<string, number> };
  visitors: Visitors["figures"];
  mixed: MixedFigures;
  samples: Sample[];
  rests: RestSample[];
  /** What was not as it must be, however long it ran. */
  problems: string[];
}

/** A bridge in a process of its own under mixed load with faults, watched from outside. */
export async function soak(options: { minutes: number; seed: number }): Promise<SoakResult> {
  const place = new SoakPlace(options.seed);
  const seconds = options.minutes * 60;
  const mixed = await mixedRun({
    seconds,
    seed: options.seed,
    place: (config, guest) => place.open(config, guest),
    rest: place.rest,
  });
  return { ...options, ...place.result(), mixed, problems: [...mixed.problems, ...place.problems] };
}

class SoakPlace {
  readonly problems: string[] = [];
  readonly rest = new Rest();
  readonly #random: Random;
  readonly #samples: Sample[] = [];
  readonly #rests: RestSample[] = [];
  #before: Probed | undefined;
  #after: Probed | undefined;
  #descriptors = { before: 0, most: 0, after: 0 };
  #visitors: Visitors | undefined;
  #isOver = false;

  constructor(seed: number) {
    this.#random = new Random(seed + 1);
  }

  async open(
    { listen, endpoints, limits }: MixedConfig,
    guest: EmulatedGuest,
  ): Promise<{ close(): Promise<void> }> {
    const bridge = await BridgeProcess.start(
      (directory) => ({
        listen,
        // The clients' process is busy with everything else, too: it is no slow reader for that.
        limits: { ...limits, slowReaderBytes: 2 ** 19 },
        guests: {
          demo: { kind: "vhost-user", path: join(directory, "demo.sock"), endpoints },
          killed: { kind: "vhost-user", path: join(directory, "killed.sock") },
          inside: { kind: "emulated" },
        },
      }),
      { flags: FLAGS },
    );
    await attachAgain(join(bridge.directory, "killed.sock"), ATTACHMENTS);
    // What every first use loads or allocates is there before anything is compared.
    this.#before = await bridge.probe();
    this.#descriptors.before = bridge.outside().descriptors;
    const connection = guest.connect(join(bridge.directory, "demo.sock"));
    await connection.attached();
    const socketPath = listen.slice("unix:".length);
    const visitors = new Visitors(socketPath, join(bridge.directory, "killed.sock"), this.#random, this.rest);
    this.#visitors = visitors;
    visitors.start();
    const sampling = this.#sample(bridge);
    return { close: () => this.#close(bridge, connection, visitors, sampling) };
  }

  result(): Omit<SoakResult, "minutes" | "seed" | "mixed" | "problems"> {
    const slope = <T extends { at: number }>(samples: readonly T[], value: (sample: T) => number): Slope => {
      const begin = (samples.at(-1)?.at ?? 0) * WARM_UP;
      const warm = samples.filter(({ at }) => at >= begin);
      return slopeOf(warm.map((sample) => ({ at: sample.at * 1000, value: value(sample) })));
    };
    return {
      rss: slope(this.#rests, ({ rss }) => rss),
      loaded: slope(this.#samples, ({ resident }) => resident),
      inUse: slope(this.#rests, ({ heap, external }) => heap + external),
      descriptors: this.#descriptors,
      resources: { before: this.#before?.resources ?? {}, after: this.#after?.resources ?? {} },
      visitors: (this.#visitors as Visitors).figures,
      samples: this.#samples,
      rests: this.#rests,
    };
  }

  async #sample(bridge: BridgeProcess): Promise<void> {
    const start = performance.now();
    const at = () => (performance.now() - start) / 1000;
    while (!this.#isOver) {
      for (let i = 0; i < SAMPLES && !this.#isOver; i++) {
        await delay(SAMPLE);
        this.#samples.push({ at: at(), resident: bridge.residentMemory() / MiB });
        this.#descriptors.most = Math.max(this.#descriptors.most, bridge.outside().descriptors);
      }
      this.rest.begin();
      await delay(REST);
      const { rss, heapUsed, external } = await bridge.probe();
      this.#rests.push({ at: at(), rss: rss / MiB, heap: heapUsed / MiB, external: external / MiB });
      this.rest.end();
    }
  }

  /** Once the clients of the mixed run are gone: everything else goes, and the bridge must have nothing left of them. */
  async #close(
    bridge: BridgeProcess,
    connection: GuestConnection,
    visitors: Visitors,
    sampling: Promise<void>,
  ): Promise<void> {
    await visitors.end();
    this.problems.push(...visitors.problems);
    connection.close();
    this.#isOver = true;
    await sampling;
    const { before } = this.#descriptors;
    await until("the descriptors of what is gone are closed", () =>
      bridge.outside().descriptors <= before ? true : undefined,
    ).catch((error: Error) => this.problems.push(`${error.message}: ${bridge.descriptors().join(" ")}`));
    this.#after = await bridge.probe();
    const { descriptors, guestMappings } = bridge.outside();
    this.#descriptors.after = descriptors;
    if (guestMappings > 0) this.problems.push(`${guestMappings} mappings of guests that are gone`);
    for (const [name, count] of Object.entries(this.#after.resources)) {
      const earlier = this.#before?.resources[name] ?? 0;
      if (count > earlier) this.problems.push(`${name}: ${count} are left, ${earlier} were there before`);
    }
    const { code, signal } = await bridge.stop();
    if (code !== 0) this.problems.push(`the bridge ended with ${signal ?? code}`);
  }
}

/** A guest comes and goes, so many times. */
async function attachAgain(socket: string, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const connection = new EmulatedGuest().connect(socket);
    await connection.attached();
    connection.close();
  }
}
