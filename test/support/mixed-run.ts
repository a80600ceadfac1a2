import { mkdtempSync, rmSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import type { EmulatedGuest } from "../../guest/index.ts";
import type { ConfigInput, Endpoint } from "../../schemas/index.ts";
import { EndpointList, Guest } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { known, MixedClients } from "./mixed-clients.ts";
import type { Rate } from "./mixed-guest.ts";
import { FROM_GUEST, MixedGuest } from "./mixed-guest.ts";
import type { MixedFigures } from "./mixed-sums.ts";
import { MixedSums } from "./mixed-sums.ts";
import { Random } from "./random.ts";
import { Rest } from "./rest.ts";

/** Endpoints of the guest, each for another kind of clients. They are declared, so that their counters outlive resets. */
const announced: Readonly<Record<string, Rate>> = {
  raw: { burst: 4, shortest: FROM_GUEST },
  json: { burst: 4, shortest: FROM_GUEST },
  mux: { burst: 4, shortest: FROM_GUEST },
  shared: { burst: 8, shortest: FROM_GUEST },
  solo: { burst: 8, shortest: FROM_GUEST },
  rude: { burst: 8, shortest: FROM_GUEST },
  slow: { burst: 20, shortest: 300 },
};
const awaited: Readonly<Record<string, Rate>> = { host: { burst: 8, shortest: FROM_GUEST } };
const names = [...Object.keys(announced), ...Object.keys(awaited)];

/** Milliseconds after which what is yet to come will not come any more. */
const PATIENCE = 20_000;

/** Starts the bridge of a mixed run with such a configuration, and the guest `demo` with it. */
export type MixedPlace = (
  config: MixedConfig,
  guest: EmulatedGuest,
) => Promise<{ close(): void | Promise<void> }>;

export interface MixedConfig extends Pick<ConfigInput, "limits"> {
  listen: string;
  /** Of the guest `demo`. */
  endpoints: Endpoints;
}

type Endpoints = NonNullable<NonNullable<ConfigInput["guests"]>[string]["endpoints"]>;

export interface MixedOptions {
  seconds: number;
  seed: number;
  /** Without it, in this process. */
  place?: MixedPlace;
  rest?: Rest;
}

const inProcess: MixedPlace = ({ listen, endpoints, limits }, guest) =>
  startBridge(
    { listen, guests: { demo: { kind: "emulated", endpoints } }, limits },
    { guests: { demo: guest } },
  );

/** A bridge, a guest that is reset again and again, and clients of all kinds that use it at the same time. */
export async function mixedRun(options: MixedOptions): Promise<MixedFigures> {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-mixed-"));
  const run = new MixedRun(options, join(directory, "bridge.sock"));
  try {
    return await run.go();
  } finally {
    await run.close();
    rmSync(directory, { recursive: true });
  }
}

class MixedRun {
  readonly #options: MixedOptions;
  readonly #socketPath: string;
  readonly #random: Random;
  readonly #rest: Rest;
  readonly #guest: MixedGuest;
  readonly #clients: MixedClients;
  #bridge: { close(): void | Promise<void> } | undefined;
  /** It has lasted as long as it is to. */
  #isLate = false;
  #isEnding = false;
  #pauses = 0;

  constructor(options: MixedOptions, socketPath: string) {
    this.#options = options;
    this.#socketPath = socketPath;
    this.#random = new Random(options.seed);
    this.#rest = options.rest ?? new Rest();
    const profile = this.#random.pick(["linux", "openamp", "rpmsg-lite"]);
    this.#guest = new MixedGuest(profile, announced, awaited, this.#random, this.#rest);
    this.#clients = new MixedClients(names, socketPath, this.#random, this.#guest.problems, this.#rest);
  }

  async go(): Promise<MixedFigures> {
    const up = Object.keys(announced).map((name) => ({ name, ns: "up" as const }));
    const { place = inProcess } = this.#options;
    const config: MixedConfig = {
      listen: `unix:${this.#socketPath}`,
      endpoints: [...up, { name: "host", address: 1040 }],
      // On a busy machine much waits when a reset comes: each of it is an error, all of them at once for a mux socket.
      limits: { slowReaderBytes: 2 ** 18, pauseTimeout: 400, drainTimeout: 200 },
    };
    this.#bridge = await place(config, this.#guest.guest);
    const over = delay(this.#options.seconds * 1000);
    this.#clients.start();
    const guest = [this.#resets(), this.#naps()];
    await over;
    this.#isLate = true;
    // A busy machine needs longer until there was something of everything.
    const latest = performance.now() + PATIENCE;
    while (!this.#wasMixed && performance.now() < latest) await delay(20);
    this.#isEnding = true;
    await Promise.all(guest);
    const busy = await this.#clients.end(PATIENCE);
    if (busy > 0) this.#guest.problems.push(`${busy} clients wait for something that does not come`);
    for (const link of this.#clients.leaving) {
      const { sender, inbox } = link.options;
      const { length } = this.#guest.heard.get(sender.number) ?? [];
      this.#guest.problems.push(
        `${sender.endpoint} ${sender.number} is ${link.isUp ? "up" : "down"}: ${length} of ${sender.sent} messages ` +
          `came, ${known(link)} were sent, ${sender.results.size} have results, ${inbox.stopped} came says the guest`,
      );
    }
    this.#guest.quiet = true;
    return this.#figures();
  }

  /** The guest was reset, and every endpoint had messages both ways. */
  get #wasMixed(): boolean {
    const has = (each: { received: number } | undefined) => each !== undefined && each.received > 0;
    return (
      this.#guest.boots > 1 &&
      names.every((name) => has(this.#guest.seen.get(name)) && has(this.#clients.accounts.get(name)))
    );
  }

  /** Nothing happens to the guest any more: what is yet to come through comes. */
  get #isCalm(): boolean {
    return this.#isEnding || (this.#isLate && this.#guest.boots > 1);
  }

  async close(): Promise<void> {
    this.#clients.close();
    await this.#bridge?.close();
  }

  async #resets(): Promise<void> {
    while (!this.#isCalm) {
      await delay(this.#random.between(400, 1300));
      // So that sessions keep nothing for their clients while it rests.
      if (this.#rest.isOn) await this.#guest.reboot();
      await this.#rest.over;
      if (this.#random.chance(0.75)) {
        // Often with messages that it has not read.
        if (this.#random.chance(0.6)) this.#guest.doze();
        await delay(this.#random.between(1, 20));
        await this.#guest.reboot();
      } else {
        this.#pauses++;
        await this.#guest.guest.pause();
        await delay(this.#random.between(5, 80));
        await this.#guest.guest.resume();
      }
    }
  }

  /** Now and then the guest takes no messages, so that there are some to wait, to be given up and to be lost. */
  async #naps(): Promise<void> {
    while (!this.#isCalm) {
      await delay(this.#random.between(50, 400));
      await this.#rest.over;
      this.#guest.doze();
      await delay(this.#random.between(1, 60));
      this.#guest.wake();
    }
  }

  async #figures(): Promise<MixedFigures> {
    const sums = new MixedSums(this.#clients, this.#guest);
    let endpoints = await this.#endpoints();
    const deadline = performance.now() + PATIENCE;
    while (sums.isUnsettled(endpoints) && performance.now() < deadline) {
      await delay(20);
      endpoints = await this.#endpoints();
    }
    const guest = Guest.parse(await this.#get("/api/v1/guests/demo"));
    return {
      seed: this.#options.seed,
      profile: this.#guest.guest.profile.name,
      resets: this.#guest.boots - 1,
      pauses: this.#pauses,
      guest: guest.counters,
      endpoints: Object.fromEntries(endpoints.map((each) => [each.name, sums.figuresOf(each)])),
      problems: [...this.#guest.problems, ...sums.problems(endpoints, guest)],
    };
  }

  async #endpoints(): Promise<Endpoint[]> {
    return EndpointList.parse(await this.#get("/api/v1/endpoints?guest=demo")).endpoints;
  }

  #get(path: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      get({ socketPath: this.#socketPath, path, headers: { host: "localhost" } }, (response) => {
        json(response).then(resolve, reject);
      }).on("error", reject);
    });
  }
}
