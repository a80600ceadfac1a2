import { readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { WebSocket } from "ws";
import type { Channel, ConnectOptions } from "../../client/index.ts";
import { connect } from "../../client/index.ts";
import type { EmulatedGuestOptions } from "../../guest/emulated-guest.ts";
import { accept, closeFd, connectUnix, listenUnix, Poller, RecordSocket } from "../../rpmsg/index.ts";
import type { ConfigInput, Endpoint, Guest } from "../../schemas/index.ts";
import type { Message } from "../../server/hand-over/messages.ts";
import { decode } from "../../server/hand-over/messages.ts";
import { Command } from "./cli-support.ts";
import { eventually, testDirectory } from "./support.ts";
import { attachGuest, isolation } from "./vhost-guest.ts";

/** Bridges as processes, one after another, with the guest `vm` in the test's own process. */
export class Dynasty {
  readonly directory = testDirectory();
  readonly vm = join(this.directory, "vm.sock");
  readonly handover = join(this.directory, "hand-over.sock");
  readonly #input: ConfigInput;
  readonly #isolation: typeof isolation;
  #configs = 0;
  url = "";

  private constructor(input: ConfigInput, isolated: typeof isolation) {
    this.#input = input;
    this.#isolation = isolated;
  }

  /** @returns with the first bridge, which listens */
  static async found(
    input: ConfigInput = {},
    isolated = isolation,
  ): Promise<{ dynasty: Dynasty; first: Command }> {
    const dynasty = new Dynasty(input, isolated);
    const first = Command.start(["serve", "--config", dynasty.config()]);
    dynasty.url = await first.url();
    return { dynasty, first };
  }

  /** A configuration file, with other keys than the first. */
  config(input: ConfigInput = {}): string {
    const path = join(this.directory, `bridge-${this.#configs++}.yaml`);
    const content = {
      listen: "127.0.0.1:0",
      handover: this.handover,
      guests: { vm: { kind: "vhost-user", path: this.vm, isolation: this.#isolation } },
      ...this.#input,
      ...input,
    };
    // YAML has all of JSON.
    writeFileSync(path, JSON.stringify(content));
    return path;
  }

  /** Starts a successor, which says when it has taken over. */
  successor(input: ConfigInput = {}, of = this.handover): Command {
    return Command.start(["serve", "--config", this.config(input), "--successor-of", of]);
  }

  /** Hands over, and waits for both. */
  async handOver(from: Command, input: ConfigInput = {}): Promise<Command> {
    const next = this.successor(input);
    this.url = await next.url();
    const { code, stderr } = await from.finished;
    if (code !== 0) throw new Error(`the predecessor exits with ${code}: ${stderr}`);
    return next;
  }

  attach(options?: EmulatedGuestOptions): ReturnType<typeof attachGuest> {
    return attachGuest(this.vm, options);
  }

  async get<T>(path: string): Promise<T> {
    return (await (await fetch(`${this.url}/api/v1${path}`)).json()) as T;
  }

  async endpoints(): Promise<Endpoint[]> {
    return (await this.get<{ endpoints: Endpoint[] }>("/endpoints")).endpoints;
  }

  guest(name = "vm"): Promise<Guest> {
    return this.get(`/guests/${name}`);
  }

  endpoint(name: string, where: (endpoint: Endpoint) => boolean = () => true): Promise<Endpoint> {
    return eventually(`endpoint ${name}`, async () =>
      (await this.endpoints()).find((each) => each.name === name && where(each)),
    );
  }

  /** A channel of the client, closed at the end of the test. */
  async channel(endpoint: string, options: ConnectOptions = {}): Promise<Channel> {
    const channel = await connect(this.url, { guest: "vm", endpoint, WebSocket, ...options });
    onTestFinished(() => channel.close());
    return channel;
  }
}

/** What a process holds open, of the kinds that a guest brings: how many of each. */
export function openDescriptors(pid: number): Record<string, number> {
  const kinds = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:?\[?\d+\]?$/, "");
    } catch {
      return "gone";
    }
  });
  const wanted = (kind: string) => /^(?:socket|anon_inode|\/memfd)/.test(kind);
  const counts: Record<string, number> = {};
  for (const kind of kinds.filter(wanted)) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

/** Waits until a process holds no more open than `before`: connections of requests end some time after their answers. */
export async function noMoreThan(before: Record<string, number>, pid: number): Promise<void> {
  await eventually("no descriptor more", () =>
    Object.entries(openDescriptors(pid)).every(([kind, count]) => count <= (before[kind] ?? 0))
      ? true
      : undefined,
  );
}

type Kind = Message["type"];

/** Between a successor and its predecessor: passes on what they say, with its descriptors, but for what a test keeps. */
export class Between {
  readonly path: string;
  readonly #poller = new Poller();
  readonly #listener: number;
  readonly #to: string;
  readonly #before: (kind: Kind) => boolean | Promise<boolean>;

  /** @param before called with each message before it is passed on; false keeps it back */
  constructor(dynasty: Dynasty, before: (kind: Kind) => boolean | Promise<boolean>) {
    this.path = join(dynasty.directory, "between.sock");
    this.#to = dynasty.handover;
    this.#before = before;
    this.#listener = listenUnix(this.path);
    this.#poller.add(this.#listener, () => this.#serve());
    onTestFinished(() => {
      closeFd(this.#listener);
      this.#poller.close();
    });
  }

  /** @returns the path of one that keeps such a message back: this happens instead */
  static until(dynasty: Dynasty, kind: Kind, happens: () => unknown): string {
    const { path } = new Between(dynasty, async (each) => {
      if (each !== kind) return true;
      await happens();
      return false;
    });
    return path;
  }

  #serve(): void {
    const fd = accept(this.#listener);
    if (fd < 0) return;
    const ends: { successor?: RecordSocket; predecessor?: RecordSocket } = {};
    const end = (from: "successor" | "predecessor", of: number): RecordSocket => {
      const other = from === "successor" ? "predecessor" : "successor";
      let order = Promise.resolve();
      return new RecordSocket(of, this.#poller, {
        onRecord: (payload, fds) => {
          order = order.then(async () => {
            if (await this.#before(decode(payload).type)) ends[other]?.send(payload, fds);
            for (const each of fds) closeFd(each);
          });
        },
        onClose: () => {
          order = order.then(() => ends[other]?.end());
        },
      });
    };
    ends.successor = end("successor", fd);
    ends.predecessor = end("predecessor", connectUnix(this.#to));
  }
}
