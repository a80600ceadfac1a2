import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, symlinkSync } from "node:fs";
import type { IncomingMessage, RequestListener } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { delimiter, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { onTestFailed, onTestFinished, vi } from "vitest";
import { testDirectory } from "./support.ts";

// A process of Node begins in seconds where the machine is busy, and a test may start a few: for every file with one.
vi.setConfig({ testTimeout: 60_000 });

/** The package's command, as `npm test` has built it. */
export const MAIN = fileURLToPath(new URL("../../dist/server/main.js", import.meta.url));

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

type UpgradeListener = (request: IncomingMessage, stream: Duplex, head: Buffer) => void;

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

  get pid(): number {
    return this.#child.pid ?? 0;
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

  /** What came on standard error so far. */
  get stderr(): string {
    return this.#stderr;
  }

  /** Waits until standard error has that text. */
  async says(text: string): Promise<void> {
    while (!this.#stderr.includes(text)) {
      if (this.#ended) throw new Error(`ended without saying "${text}": ${this.#stderr}`);
      await this.#woken();
    }
  }

  /** All of its standard output, byte by byte. */
  async bytes(): Promise<Buffer> {
    await this.finished;
    return Buffer.from(this.#stdout, "latin1");
  }

  /** For `serve`: the URL at which it listens. */
  async url(): Promise<string> {
    const { url } = JSON.parse(await this.line()) as { url: string };
    return url;
  }

  type(text: string): void {
    this.#child.stdin.write(text);
  }

  /** Standard input is at its end. */
  endInput(): void {
    this.#child.stdin.end();
  }

  /** Reads its standard output no more, as `head` when it has enough. */
  closeOutput(): void {
    this.#child.stdout.destroy();
  }

  /** Does not read its standard output until `resume`. */
  pause(): void {
    this.#child.stdout.pause();
  }

  resume(): void {
    this.#child.stdout.resume();
  }

  /** Sends a signal that does not end it. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
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

/** The URL of a server, until the end of the test, that is no bridge. */
export async function strangeServer(answer: RequestListener, onUpgrade?: UpgradeListener): Promise<string> {
  const server = createServer(answer);
  if (onUpgrade !== undefined) server.on("upgrade", onUpgrade);
  await once(server.listen(0, "127.0.0.1"), "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Of util-linux: gives a process a terminal. */
const SCRIPT = "script";

/** Whether it is there. */
export const terminals = /util-linux/.test(
  spawnSync(SCRIPT, ["--version"], { encoding: "utf8" }).stdout ?? "",
);

/** Where shells find our `rpmsg-bridge` first. Until the end of the test. */
export function shellPath(): string {
  const directory = testDirectory();
  symlinkSync(MAIN, join(directory, "rpmsg-bridge"));
  return [directory, dirname(process.execPath), process.env["PATH"]].join(delimiter);
}

/** A terminal, in which a command of the shell runs. */
export class Terminal {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #closed: Promise<void>;
  #shown = "";
  #ended = false;
  #wake: () => void = () => {};

  constructor(command: string, environment: NodeJS.ProcessEnv = {}) {
    const { HOME } = process.env;
    const env = {
      PATH: shellPath(),
      HOME,
      SHELL: "/bin/sh",
      TERM: "dumb",
      LC_ALL: "C.UTF-8",
      ...environment,
    };
    this.#child = spawn(SCRIPT, ["--quiet", "--flush", "--command", command, "/dev/null"], { env });
    this.#child.stdin.on("error", () => {});
    this.#child.stdout.setEncoding("utf8").on("data", (part: string) => {
      this.#shown += part;
      this.#wake();
    });
    this.#closed = new Promise((resolve) => this.#child.once("close", () => resolve()));
    void this.#closed.then(() => {
      this.#ended = true;
      this.#wake();
    });
    onTestFailed(() => console.error(`last on the terminal: ${JSON.stringify(this.#shown)}`));
    onTestFinished(async () => {
      await this.close();
    });
  }

  type(text: string | Uint8Array): void {
    this.#child.stdin.write(text);
  }

  /** Closes it, as somebody closes a window. */
  async close(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#closed;
  }

  /** Waits until that text is shown, and gives all up to its end; the next call goes on from there. */
  async expect(text: string): Promise<string> {
    for (;;) {
      const at = this.#shown.indexOf(text);
      if (at !== -1) {
        const all = this.#shown.slice(0, at + text.length);
        this.#shown = this.#shown.slice(all.length);
        return all;
      }
      if (this.#ended) throw new Error(`ended without showing ${JSON.stringify(text)}: ${this.#shown}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
