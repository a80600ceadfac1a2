import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

/** The package's command, as `npm test` has built it. */
const MAIN = fileURLToPath(new URL("../../dist/server/main.js", import.meta.url));

export interface Finished {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface StartOptions {
  environment?: NodeJS.ProcessEnv;
  /** What is typed; without it standard input stays open. */
  input?: string | Uint8Array;
}

/** A process of `rpmsg-bridge`. */
export class Command {
  readonly finished: Promise<Finished>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: string[] = [];
  #stdout = "";
  #stderr = "";
  #ended = false;
  #wake: () => void = () => {};

  /** Whoever starts it also ends it: see `start`. */
  constructor(args: string[], { environment = {}, input }: StartOptions = {}) {
    if (!existsSync(MAIN)) throw new Error(`${MAIN} is not there: npm run build`);
    const { PATH, HOME } = process.env;
    this.#child = spawn(process.execPath, [MAIN, ...args], { env: { PATH, HOME, ...environment } });
    const { stdin, stdout, stderr } = this.#child;
    stdin.on("error", () => {});
    if (input !== undefined) stdin.end(input);
    stdout.on("data", (part: Buffer) => {
      this.#stdout += part.toString("latin1");
    });
    stderr.on("data", (part: Buffer) => {
      this.#stderr += part.toString();
      this.#wake();
    });
    createInterface({ input: stdout }).on("line", (line) => {
      this.#lines.push(line);
      this.#wake();
    });
    this.finished = new Promise((resolve) => {
      this.#child.once("close", (code, signal) => {
        this.#ended = true;
        resolve({
          code,
          signal,
          stdout: Buffer.from(this.#stdout, "latin1").toString(),
          stderr: this.#stderr,
        });
        this.#wake();
      });
    });
  }

  /** Starts one that is killed at the end of the test, if it is still there. */
  static start(args: string[], options?: StartOptions): Command {
    const command = new Command(args, options);
    onTestFinished(async () => {
      await command.kill("SIGKILL");
    });
    return command;
  }

  /** Runs one to its end. */
  static run(args: string[], options: StartOptions = {}): Promise<Finished> {
    return Command.start(args, { input: "", ...options }).finished;
  }

  /** The next line of standard output. */
  async line(): Promise<string> {
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined) return line;
      if (this.#ended) throw new Error(`ended without another line: ${this.#stderr}`);
      await this.#woken();
    }
  }

  /** Waits until standard error has that text. */
  async says(text: string): Promise<void> {
    while (!this.#stderr.includes(text)) {
      if (this.#ended) throw new Error(`ended without saying "${text}": ${this.#stderr}`);
      await this.#woken();
    }
  }

  /** For `serve`: the URL at which it listens. */
  async url(): Promise<string> {
    const { url } = JSON.parse(await this.line()) as { url: string };
    return url;
  }

  type(text: string): void {
    this.#child.stdin.write(text);
  }

  async kill(signal: NodeJS.Signals): Promise<Finished> {
    this.#child.kill(signal);
    return this.finished;
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
