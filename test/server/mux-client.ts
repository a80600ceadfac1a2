import { once } from "node:events";
import { onTestFinished } from "vitest";
import { WebSocket } from "ws";
import type { Service, ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";
import type { ConfigInput, Endpoint } from "../../schemas/index.ts";
import {
  EndpointList,
  MUX_MESSAGE_COST,
  MuxClientFrame,
  MuxServerFrame,
  muxHeader,
} from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { Client, eventually } from "./support.ts";

/** In a frame to the bridge: the endpoint's peer. */
export const PEER = 0xffff_ffff;

/** A binary frame of the bridge. */
export interface MuxMessage {
  type: "message";
  sub: number;
  src: number;
  /** The channel's count. */
  seq: number;
  bytes: Buffer;
}

export type MuxFrame = MuxServerFrame | MuxMessage;
type FrameOf<Type extends MuxFrame["type"]> = Extract<MuxFrame, { type: Type }>;

/** A client of `rpmsg.v1.mux` that holds every frame against the schema and keeps it until it is asked for. */
export class MuxClient {
  readonly socket: WebSocket;
  /** What came and was not taken, in order. */
  readonly frames: MuxFrame[] = [];
  /** Code of the end. */
  readonly closed: Promise<number>;
  #wakes: (() => void)[] = [];
  #broken: unknown;

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("message", (data: Buffer, isBinary) => {
      try {
        this.frames.push(isBinary ? parseMessage(data) : parseControl(data));
      } catch (error) {
        this.#broken = error;
      }
      this.#wake();
    });
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => {
      socket.once("close", (code) => {
        resolve(code);
        this.#wake();
      });
    });
  }

  /** Connects and takes the `hello`. */
  static async open(url: string): Promise<MuxClient> {
    const socket = new WebSocket(`${url.replace("http", "ws")}/ws/v1`, ["rpmsg.v1.mux"], {
      perMessageDeflate: false,
    });
    const client = new MuxClient(socket);
    onTestFinished(() => socket.terminate());
    await once(socket, "open");
    await client.take("hello");
    return client;
  }

  /** The first frame of this type, and of this subscription, that was not taken; rejects when the connection ends. */
  async take<Type extends MuxFrame["type"]>(type: Type, sub?: number): Promise<FrameOf<Type>> {
    const fits = (frame: MuxFrame) =>
      frame.type === type && (sub === undefined || ("sub" in frame && frame.sub === sub));
    return (await this.#first(fits)) as FrameOf<Type>;
  }

  async takeMany<Type extends MuxFrame["type"]>(
    count: number,
    type: Type,
    sub?: number,
  ): Promise<FrameOf<Type>[]> {
    const frames: FrameOf<Type>[] = [];
    while (frames.length < count) frames.push(await this.take(type, sub));
    return frames;
  }

  /** The next frame, whatever it is. */
  next(): Promise<MuxFrame> {
    return this.#first(() => true);
  }

  /** Everything of a subscription that has come and was not taken. */
  of(sub: number): MuxFrame[] {
    return this.frames.filter((frame) => "sub" in frame && frame.sub === sub);
  }

  /** Everything that the bridge wrote before it read this has come. */
  async settled(): Promise<void> {
    this.control({ type: "ping" });
    await this.take("pong");
  }

  control(frame: MuxClientFrame): void {
    this.socket.send(JSON.stringify(MuxClientFrame.parse(frame)));
  }

  subscribe(sub: number, path: string, credit?: number): void {
    this.control({ type: "subscribe", sub, path, ...(credit !== undefined && { credit }) });
  }

  /** Subscribes; throws where the bridge refuses. */
  async subscribed(sub: number, path: string, credit?: number): Promise<FrameOf<"subscribed">> {
    this.subscribe(sub, path, credit);
    const frame = await this.#first(
      (each) => (each.type === "subscribed" || each.type === "error") && each.sub === sub,
    );
    if (frame.type !== "subscribed") throw new Error(JSON.stringify(frame));
    return frame;
  }

  /** Subscribes where the bridge is to refuse, and gives its error. */
  async refused(sub: number, path: string): Promise<FrameOf<"error">> {
    this.subscribe(sub, path);
    return this.take("error", sub);
  }

  /** Sends a message; with a number the result is told. */
  send(sub: number, payload: string | Uint8Array, number = 0, dst = PEER): void {
    this.socket.send(muxMessage(sub, dst, number, payload));
  }

  async close(): Promise<void> {
    this.socket.close();
    await this.closed;
  }

  #wake(): void {
    for (const wake of this.#wakes.splice(0)) wake();
  }

  async #first(fits: (frame: MuxFrame) => boolean): Promise<MuxFrame> {
    for (;;) {
      const at = this.frames.findIndex(fits);
      if (at !== -1) return this.frames.splice(at, 1)[0] as MuxFrame;
      if (this.#broken !== undefined) throw this.#broken;
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error("the connection has ended");
      await new Promise<void>((resolve) => {
        this.#wakes.push(resolve);
      });
    }
  }
}

/** The credit that a message costs. */
export function costOf(payload: string | Uint8Array): number {
  return MUX_MESSAGE_COST + Buffer.byteLength(payload);
}

/** A binary frame to the bridge, as the schema describes its header. */
export function muxMessage(sub: number, dst: number, number: number, payload: string | Uint8Array): Buffer {
  const frame = Buffer.concat([Buffer.alloc(muxHeader.size), Buffer.from(payload)]);
  frame.writeUInt32LE(sub, muxHeader.subscription);
  frame.writeUInt32LE(dst, muxHeader.address);
  frame.writeUInt32LE(number, muxHeader.number);
  return frame;
}

export function parseMessage(data: Buffer): MuxMessage {
  return {
    type: "message",
    sub: data.readUInt32LE(muxHeader.subscription),
    src: data.readUInt32LE(muxHeader.address),
    seq: data.readUInt32LE(muxHeader.number),
    bytes: data.subarray(muxHeader.size),
  };
}

/** A control frame; throws where it is not, to the last key, as the schema says. */
export function parseControl(data: Buffer): MuxServerFrame {
  const value: unknown = JSON.parse(data.toString());
  const frame = MuxServerFrame.parse(value);
  const keys = (object: unknown) => Object.keys(object as object).toSorted();
  if (keys(frame).join() !== keys(value).join()) throw new Error(`keys of no schema: ${data.toString()}`);
  return frame;
}

/** A service that takes so many messages as it is let, and keeps them. */
export class Sluice {
  readonly taken: Buffer[] = [];
  context: ServiceContext | undefined;
  #left = 0;
  readonly guest: EmulatedGuest;

  /** @param names of the services; the guest has 8 buffers each way */
  constructor(...names: string[]) {
    const factory = (context: ServiceContext): Service => {
      this.context = context;
      return {
        onMessage: (_src, bytes, offset, length) => {
          if (this.#left === 0) return false;
          this.#left--;
          this.taken.push(Buffer.from(bytes.subarray(offset, offset + length)));
          return true;
        },
      };
    };
    const services = Object.fromEntries(
      (names.length === 0 ? ["sluice"] : names).map((name) => [name, factory]),
    );
    this.guest = new EmulatedGuest({ profile: "rpmsg-lite", services });
  }

  let(count: number): void {
    this.#left += count;
    this.guest.called();
  }

  /** Sends to an address; waits for buffers. */
  async send(dst: number, bytes: Uint8Array): Promise<void> {
    await eventually("a buffer", () => (this.context?.send(dst, bytes) ? true : undefined));
  }
}

/** A bridge with emulated guests of the test in its own process. */
export interface EmulatedBridge {
  readonly url: string;
  readonly endpoints: () => Promise<Endpoint[]>;
  /** The endpoint of that name, as soon as it is listed and `where` holds for it. */
  readonly endpoint: (name: string, where?: (endpoint: Endpoint) => boolean) => Promise<Endpoint>;
  readonly mux: () => Promise<MuxClient>;
  readonly connect: (path: string, protocols?: string[]) => Promise<Client>;
  readonly close: () => Promise<void>;
}

export async function emulatedBridge(
  guests: Readonly<Record<string, EmulatedGuest>>,
  input: ConfigInput = {},
): Promise<EmulatedBridge> {
  // Guests that take nothing do not hold up the end of a test.
  const limits = { drainTimeout: 200, ...input.limits };
  const running = await startBridge({ listen: "127.0.0.1:0", ...input, limits }, { guests });
  const { url } = running;
  const close = () => running.close();
  onTestFinished(close);
  const endpoints = async () =>
    EndpointList.parse(await (await fetch(`${url}/api/v1/endpoints`)).json()).endpoints;
  return {
    url,
    endpoints,
    endpoint: (name, where = () => true) =>
      eventually(`endpoint ${name}`, async () =>
        (await endpoints()).find((each) => each.name === name && where(each)),
      ),
    mux: () => MuxClient.open(url),
    connect: (path, protocols) => Client.open(url.replace("http", "ws") + path, protocols),
    close,
  };
}
