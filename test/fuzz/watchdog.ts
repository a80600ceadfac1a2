import { once } from "node:events";
import { Worker } from "node:worker_threads";

/** Seconds that one case may take. */
const PATIENCE = 30;

/** Runs in a thread of its own, so it names nothing from outside. */
const WATCH = `
  const { writeSync } = require("node:fs");
  const { parentPort, workerData } = require("node:worker_threads");
  parentPort.postMessage("watching");
  const [beats, seeds] = workerData.shared;
  let seen = -1;
  setInterval(() => {
    const beat = Atomics.load(beats, 0);
    if (beat === seen) {
      writeSync(1, "HANGS\\n");
      writeSync(2, "a case does not end; again: " + workerData.command + " --seed " + seeds[0] + " --cases 1\\n");
      process.kill(process.pid, "SIGKILL");
    }
    seen = beat;
  }, workerData.milliseconds);
`;

/** Ends the process where a case does not end: work without a bound is a finding, and nothing else could tell of it. */
export class Watchdog {
  readonly #beats = new Int32Array(new SharedArrayBuffer(4));
  readonly #seeds = new Uint32Array(new SharedArrayBuffer(4));
  readonly #worker: Worker;

  private constructor(command: string) {
    const shared = [this.#beats, this.#seeds];
    this.#worker = new Worker(WATCH, {
      eval: true,
      workerData: { shared, command, milliseconds: PATIENCE * 1000 },
    });
    this.#worker.unref();
  }

  /**
   * Done when it watches. Until then its thread opens descriptors, when it likes: a target that counted those of the
   * process meanwhile would find some more later.
   * @param command what runs a case again, but for its seed
   */
  static async start(command: string): Promise<Watchdog> {
    const watchdog = new Watchdog(command);
    await once(watchdog.#worker, "message");
    return watchdog;
  }

  /** A case begins. */
  beat(seed: number): void {
    this.#seeds[0] = seed;
    Atomics.add(this.#beats, 0, 1);
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
