import { join } from "node:path";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, quantile, until } from "../../support/figures.ts";
import { FrontendProcess } from "../../support/frontend-process.ts";
import { grown } from "../grown.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const KILLS = { test: 8, short: 100, full: 1000 };
/** Guests whose frontends are killed at the same moment. With more the figure is how long the system takes to end them. */
const GUESTS = 2;
/** Milliseconds that a new attachment may take, and a client's way to its first echo: 99 of 100. */
const ATTACHED_WITHIN = 100;
/** In one round of so many the frontend that comes next is killed, too. */
const EARLY = 4;
/** Messages of a frontend until its guest is attached. */
const MESSAGES = 18;

export const scenario: Scenario = {
  fault: "frontend killed (SIGKILL) while its clients talk, a quarter of them in the middle of attaching",
  passes: "new attachment within 100 ms (p99), nothing leaked, every WebSocket client told 4001",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const guests = Array.from({ length: GUESTS }, (_, i) => `vm${i}`);
  const bridge = await BridgeProcess.start((directory) => ({
    guests: Object.fromEntries(
      guests.map((name) => [name, { kind: "vhost-user" as const, path: join(directory, `${name}.sock`) }]),
    ),
  }));
  try {
    // What is loaded and allocated once is there before anything is compared.
    await killAll(bridge, guests, scale === "test" ? 1 : 2 * EARLY);
    const before = await bridge.probe();
    const outsideBefore = bridge.outside();
    const killers = await killAll(bridge, guests, KILLS[scale] / guests.length);
    const problems = killers.flatMap((killer) => killer.problems);
    const endpoints = await bridge.endpoints();
    if (endpoints.length > 0) problems.push(`${endpoints.length} endpoints are left of dead guests`);
    const after = await bridge.probe();
    const { descriptors, guestMappings } = bridge.outside();
    if (descriptors > outsideBefore.descriptors)
      problems.push(`more descriptors: ${bridge.descriptors().join(" ")}`);
    if (guestMappings > 0) problems.push(`${guestMappings} mappings of dead guests`);
    problems.push(...grown(before, after));
    const attached = killers.flatMap((killer) => killer.attached);
    const echoed = killers.flatMap((killer) => killer.echoed);
    const told = killers.reduce((sum, killer) => sum + killer.told, 0);
    const slow = [attached, echoed]
      .map((values) => quantile(values, 0.99))
      .filter((p99) => p99 > ATTACHED_WITHIN)
      .map((p99) => `p99 ${p99.toFixed(0)} ms`);
    return {
      measured:
        `${count(KILLS[scale])} kills: to the next attachment ${latencies(attached)}; to the first echo of a new ` +
        `client ${latencies(echoed)}; ${count(told)} clients told 4001; descriptors ${outsideBefore.descriptors} ` +
        `before, ${descriptors} after; guest mappings ${guestMappings}; ` +
        `heap ${((after.heapUsed - before.heapUsed) / 1024).toFixed(0)} KiB more`,
      problems,
      slow,
    };
  } finally {
    await bridge.stop();
  }
}

/** Kills the frontends of all guests at the same moment, so many times. */
async function killAll(bridge: BridgeProcess, guests: readonly string[], rounds: number): Promise<Killer[]> {
  const killers = guests.map((guest) => new Killer(bridge, guest));
  const all = (action: (killer: Killer) => Promise<void>) => Promise.all(killers.map(action));
  await all((killer) => killer.begin());
  for (let round = 1; round <= rounds; round++) {
    // No process starts while time is measured.
    await all((killer) => killer.prepare());
    await all((killer) => (round % EARLY === 0 ? killer.killEarly(round) : killer.kill()));
  }
  await all((killer) => killer.end());
  return killers;
}

/** Kills the frontends of one guest, one after another. */
class Killer {
  readonly problems: string[] = [];
  /** Milliseconds from a kill to the next attachment, and to the first echo of a client that connects then. */
  readonly attached: number[] = [];
  readonly echoed: number[] = [];
  told = 0;
  readonly #bridge: BridgeProcess;
  readonly #guest: string;
  readonly #socket: string;
  /** The first is attached, the others could be. */
  readonly #frontends: FrontendProcess[] = [];
  #client: EchoClient | undefined;

  constructor(bridge: BridgeProcess, guest: string) {
    this.#bridge = bridge;
    this.#guest = guest;
    this.#socket = join(bridge.directory, `${guest}.sock`);
  }

  async begin(): Promise<void> {
    this.#frontends.push(new FrontendProcess(this.#socket));
    await this.#frontends[0]?.ready();
    await this.#frontends[0]?.attach();
  }

  /** Another frontend is ready, or two, and a client talks. */
  async prepare(): Promise<void> {
    while (this.#frontends.length < 3) this.#frontends.push(new FrontendProcess(this.#socket));
    await Promise.all(this.#frontends.slice(1).map((frontend) => frontend.ready()));
    this.#client = await this.#connect();
    await this.#client.echo("hello");
  }

  async kill(): Promise<void> {
    const client = this.#client as EchoClient;
    const [current, next] = this.#frontends as [FrontendProcess, FrontendProcess];
    this.#frontends.shift();
    // There is always something on its way.
    for (let n = 0; n < 50; n++) client.socket.send(`${n}`);
    const start = performance.now();
    const dead = current.kill();
    const attached = next.attach().then(() => this.attached.push(performance.now() - start));
    await this.#isTold(client);
    await attached;
    const again = await this.#connect();
    await again.echo("again");
    this.echoed.push(performance.now() - start);
    again.socket.terminate();
    await dead;
  }

  /** The next one is killed, too, on its way to be attached: behind another message each time, behind each in turn. */
  async killEarly(round: number): Promise<void> {
    const [current, early, next] = this.#frontends as [FrontendProcess, FrontendProcess, FrontendProcess];
    this.#frontends.splice(0, 2);
    await current.kill();
    // Without a common divisor.
    await early.attachPartly(1 + (((round / EARLY) * 7) % MESSAGES));
    await this.#isTold(this.#client as EchoClient);
    await next.attach();
  }

  async end(): Promise<void> {
    for (const frontend of this.#frontends.splice(0)) await frontend.kill();
    await until(`${this.#guest} is gone`, async () =>
      (await this.#bridge.guest(this.#guest)).state === "waiting" ? true : undefined,
    );
  }

  async #isTold(client: EchoClient): Promise<void> {
    const code = await client.closed;
    if (code === 4001) this.told++;
    else this.problems.push(`a client of a dead guest was closed with ${code}`);
  }

  /** As soon as the guest has announced its echo. */
  async #connect(): Promise<EchoClient> {
    return until("the echo is there", () =>
      EchoClient.open(this.#bridge.url, `/ws/v1/${this.#guest}/echo`).catch(() => undefined),
    );
  }
}
