import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { onTestFinished } from "vitest";
import { echo } from "../../guest/services/echo.ts";
import { source } from "../../guest/services/source.ts";
import type { ConfigInput } from "../../schemas/index.ts";
import type { RunningBridge } from "../server/support.ts";
import type { AttachedGuest, VhostBridge } from "../server/vhost-guest.ts";
import { Valve, vhostBridge } from "../server/vhost-guest.ts";
import type { Command } from "./scenarios.ts";
import { BURST } from "./scenarios.ts";

/**
 * The network between the client and the bridge: TCP connections that break when they are to. It has pages of its own:
 * they are of the bridge's origin then. (A browser holds those that a test makes up to be from far away, and does not
 * let them connect to this machine.)
 */
export class Network {
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** By path: type and content. */
  readonly pages = new Map<string, readonly [type: string, body: string]>();
  /** Where new connections go: a URL. */
  target = "";
  readonly #pairs = new Set<readonly [near: Socket, far: Socket]>();

  private constructor(port: number) {
    this.url = `http://127.0.0.1:${port}`;
  }

  static async open(): Promise<Network> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const network = new Network((server.address() as AddressInfo).port);
    server.on("connection", (near) => {
      near.on("error", () => {});
      near.once("data", (head: Buffer) => {
        const [, path = ""] = head.toString("latin1").split(" ");
        const page = network.pages.get(path);
        near.pause();
        if (page !== undefined) near.end(answer(...page));
        else if (network.target === "") near.destroy();
        else network.#join(near, head);
      });
    });
    onTestFinished(() => {
      server.close();
      network.kill();
    });
    return network;
  }

  kill(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  /** Nothing passes any more, and nobody is told. */
  freeze(): void {
    for (const [near, far] of this.#pairs) {
      near.unpipe(far).pause();
      far.unpipe(near).pause();
    }
  }

  hold(): void {
    for (const [near, far] of this.#pairs) far.unpipe(near).pause();
  }

  release(): void {
    for (const [near, far] of this.#pairs) far.pipe(near);
  }

  #join(near: Socket, head: Buffer): void {
    const far = connect(Number(new URL(this.target).port), "127.0.0.1");
    far.write(head);
    const pair = [near, far] as const;
    this.#pairs.add(pair);
    for (const [socket, other] of [pair, [far, near] as const]) {
      socket.setNoDelay();
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#pairs.delete(pair);
        other.destroy();
      });
      socket.pipe(other);
    }
  }
}

function answer(type: string, body: string): string {
  const length = Buffer.byteLength(body);
  return `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n${body}`;
}

interface Theatre {
  /** Where the client finds the bridge. */
  url: string;
  pages: Network["pages"];
  control: (command: Command) => Promise<void>;
}

/**
 * A bridge with the guest `vm`, which has the services `echo`, `source` and `stuck`, which takes nothing; the guest
 * does not know the host's service `silent`.
 */
export async function openTheatre(input: Omit<ConfigInput, "guests"> = {}): Promise<Theatre> {
  const network = await Network.open();
  let bridge: VhostBridge;
  let guest: AttachedGuest;
  const raise = async (): Promise<void> => {
    bridge = await vhostBridge(input, { endpoints: [{ name: "silent" }] });
    const stuck = new Valve();
    guest = await bridge.attach({
      services: { echo, source, stuck: stuck.factory },
      otherService: (name) => (name === "silent" ? undefined : echo),
    });
    await listed(bridge, "echo", "source", "stuck");
    network.target = bridge.url;
  };
  await raise();

  const commands: Record<Command, () => unknown> = {
    "kill connections": () => network.kill(),
    "freeze connections": () => network.freeze(),
    hold: () => network.hold(),
    release: () => network.release(),
    burst: () => bridge.endpoint("source", ({ counters }) => counters.messagesFromGuest === BURST),
    "pause guest": () => guest.vm.pause(),
    "resume guest": () => guest.vm.resume(),
    "reboot guest": () => guest.vm.reboot(),
    "withdraw echo": () => guest.guest.withdraw("echo"),
    "announce echo": () => guest.guest.announce("echo", echo),
    "take echo over": () => bridge.connect("/ws/v1/vm/echo?share=exclusive&takeover=1"),
    "replace bridge": async () => {
      const before = bridge;
      await raise();
      await before.bridge.drain();
    },
  };
  return {
    url: network.url,
    pages: network.pages,
    control: async (command) => {
      await commands[command]();
    },
  };
}

async function listed(bridge: RunningBridge, ...names: string[]): Promise<void> {
  for (const name of names) await bridge.endpoint(name);
}
