import type { ChildProcess } from "node:child_process";
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { json, text } from "node:stream/consumers";
import { pathToFileURL, urlToHttpOptions } from "node:url";
import { compiled } from "../../bench/harness.ts";
import type { ConfigInput, Endpoint } from "../../schemas/index.ts";
import { EndpointList, Guest } from "../../schemas/index.ts";

export type ProbeQuestion = "figures" | "watch-lag";

/** What a bridge tells of itself when it has given back all memory that it can. Bytes and milliseconds. */
export interface Probed {
  rss: number;
  heapUsed: number;
  external: number;
  arrayBuffers: number;
  /** process.getActiveResourcesInfo(), counted: timers, sockets, handles. */
  resources: Record<string, number>;
  /** How late the event loop was, since `watchLag`. */
  lag: { p50: number; p99: number; max: number };
}

/** What can be seen of a process from outside. */
export interface Outside {
  /** Open descriptors. */
  descriptors: number;
  /** Mappings of guest memory. */
  guestMappings: number;
}

/** How it ended. */
export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Milliseconds from the signal. */
  after: number;
}

interface StartOptions {
  /** Flags of Node, besides. */
  readonly flags?: readonly string[];
  /** How many the process may have (prlimit(1)). */
  descriptors?: number;
  /** Takes the lines of its log, which are shown otherwise. */
  onLog?: (line: string) => void;
}

/** `rpmsg-bridge serve` in a process of its own. It ends with this one at the latest. */
export class BridgeProcess {
  readonly url: string;
  /** For vhost-user sockets and the like; removed at the end. */
  readonly directory: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<[number | null, NodeJS.Signals | null]>;

  private constructor(child: ChildProcess, url: string, directory: string) {
    this.#child = child;
    this.url = url;
    this.directory = directory;
    this.#ended = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
  }

  /**
   * @param configure the configuration, given a directory for its sockets; without `listen` it takes a free port
   * @throws Error it does not listen
   */
  static async start(
    configure: (directory: string) => ConfigInput,
    { flags = [], descriptors, onLog }: StartOptions = {},
  ): Promise<BridgeProcess> {
    const directory = mkdtempSync(join(tmpdir(), "rpmsg-bridge-"));
    const config = join(directory, "config.json");
    const defaults: ConfigInput = { listen: "127.0.0.1:0", logLevel: "error" };
    writeFileSync(config, JSON.stringify({ ...defaults, ...configure(directory) }));
    const probe = pathToFileURL(compiled("test/support/probe.js")).href;
    const options = ["--expose-gc", "--enable-source-maps", "--import", probe, ...flags];
    const child = fork(compiled("server/main.js"), ["serve", "--config", config], {
      ...(descriptors === undefined
        ? { execArgv: options }
        : {
            execPath: "prlimit",
            execArgv: [`--nofile=${descriptors}:${descriptors}`, process.execPath, ...options],
          }),
      stdio: ["ignore", "pipe", onLog === undefined ? "inherit" : "pipe", "ipc"],
    });
    const kill = () => child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.off("exit", kill));
    if (child.stderr !== null && onLog !== undefined)
      createInterface({ input: child.stderr }).on("line", onLog);
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    const line = await new Promise<string>((resolve, reject) => {
      lines.once("line", resolve);
      child.once("exit", (code, signal) => reject(new Error(`the bridge ended with ${signal ?? code}`)));
    }).catch((error: unknown) => {
      rmSync(directory, { recursive: true });
      throw error;
    });
    return new BridgeProcess(child, (JSON.parse(line) as { url: string }).url, directory);
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** What it tells of itself. */
  probe(): Promise<Probed> {
    return this.#ask("figures") as Promise<Probed>;
  }

  /** Measures the lag of its event loop from now until the next `probe`. */
  async watchLag(): Promise<void> {
    await this.#ask("watch-lag");
  }

  outside(): Outside {
    const maps = readFileSync(`/proc/${this.pid}/maps`, "latin1");
    return {
      descriptors: readdirSync(`/proc/${this.pid}/fd`).length,
      guestMappings: maps.split("\n").filter((line) => line.includes("/memfd:")).length,
    };
  }

  /** Bytes of resident memory now, without a collection. */
  residentMemory(): number {
    const [, kibibytes] =
      /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.pid}/status`, "latin1")) ?? [];
    return Number(kibibytes) * 1024;
  }

  /** What its descriptors are, sorted. */
  descriptors(): string[] {
    const directory = `/proc/${this.pid}/fd`;
    const names = readdirSync(directory).map((fd) => {
      try {
        return readlinkSync(join(directory, fd)).replace(/\d+/, "N");
      } catch {
        // Closed since.
        return "";
      }
    });
    return names.filter((name) => name !== "").toSorted();
  }

  async endpoints(): Promise<Endpoint[]> {
    return EndpointList.parse(await this.#get("/api/v1/endpoints")).endpoints;
  }

  async guest(name: string): Promise<Guest> {
    return Guest.parse(await this.#get(`/api/v1/guests/${name}`));
  }

  /** The value of a sample of /metrics, by its name and labels. @throws Error there is none */
  async metric(sample: string): Promise<number> {
    const page = await text(await this.#open("/metrics"));
    const line = page.split("\n").find((each) => each.startsWith(`${sample} `));
    if (line === undefined) throw new Error(`no ${sample} in /metrics`);
    return Number(line.slice(sample.length));
  }

  /** @returns how long the answer to /healthz took, in milliseconds */
  async health(): Promise<number> {
    const start = performance.now();
    const response = await this.#open("/healthz");
    await text(response);
    if (response.statusCode !== 200) throw new Error(`/healthz: ${response.statusCode}`);
    return performance.now() - start;
  }

  /** Ends it as a supervisor does, and waits for it. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<Ended> {
    const start = performance.now();
    this.#child.kill(signal);
    const [code, by] = await this.#ended;
    rmSync(this.directory, { recursive: true, force: true });
    return { code, signal: by, after: performance.now() - start };
  }

  async #ask(question: ProbeQuestion): Promise<unknown> {
    const answer = once(this.#child, "message");
    this.#child.send(question);
    const over = this.#ended.then(() => Promise.reject(new Error("the bridge has ended")));
    const [message] = (await Promise.race([answer, over])) as [unknown];
    return message;
  }

  async #get(path: string): Promise<unknown> {
    return json(await this.#open(path));
  }

  /** On a connection of its own, so that none is left. */
  async #open(path: string): Promise<IncomingMessage> {
    const target = this.url.startsWith("unix:")
      ? { socketPath: this.url.slice("unix:".length), path, headers: { host: "localhost" } }
      : urlToHttpOptions(new URL(path, this.url));
    const [response] = (await once(request({ ...target, agent: false }).end(), "response")) as [
      IncomingMessage,
    ];
    return response;
  }
}
