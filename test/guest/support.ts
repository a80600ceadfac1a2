import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, onTestFinished } from "vitest";
import type { EmulatedGuestOptions } from "../../guest/emulated-guest.ts";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { InProcessLink } from "../../guest/in-process.ts";
import { attachInProcess } from "../../guest/in-process.ts";
import { MEMORY_BASE } from "../../guest/layout.ts";
import type { ProfileName } from "../../guest/profiles.ts";
import type { Service, ServiceContext, ServiceFactory } from "../../guest/service.ts";
import type { Endpoint, GuestAnnouncement, MemoryWindow, SendQueue } from "../../rpmsg/index.ts";
import { DeviceQueue, GuestMemory, heapRegion, RpmsgDevice } from "../../rpmsg/index.ts";

/** Whatever clock a test gives itself. */
const now = performance.now.bind(performance);

/** Waits, a turn of the event loop at a time, until something is so. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = now() + 15_000;
  while (!condition()) {
    if (now() > deadline) expect.fail("still not so after 15 seconds");
    await nextTurn();
  }
}

export async function turns(count = 6): Promise<void> {
  for (let i = 0; i < count; i++) await nextTurn();
}

/** The host's side of a guest: a device that keeps what it hears. */
export class Host {
  readonly announced: GuestAnnouncement[] = [];
  readonly withdrawn: GuestAnnouncement[] = [];
  readonly states: string[] = [];
  readonly device: RpmsgDevice;

  constructor() {
    this.device = new RpmsgDevice({
      onAnnounced: (announcement) => this.announced.push(announcement),
      onWithdrawn: (announcement) => this.withdrawn.push(announcement),
      onState: (state) => this.states.push(state),
    });
  }

  addressOf(name: string): number {
    const found = [...this.device.guestAnnouncements].find((each) => each.name === name);
    if (found === undefined) throw new Error(`the guest has not announced ${name}`);
    return found.address;
  }

  /** A client with an address of its own, that talks to `peer`, or to whoever talks to it. */
  open(options: { peer?: number; address?: number; copy?: boolean } = {}): Client {
    const client = new Client(this.device, options.address, options.peer);
    return client;
  }
}

export class Client {
  readonly endpoint: Endpoint;
  readonly got: { src: number; bytes: Buffer }[] = [];
  readonly undelivered: string[] = [];
  readonly #queue: SendQueue;

  constructor(device: RpmsgDevice, address: number | undefined, peer: number | undefined) {
    this.endpoint = device.createEndpoint((src, bytes, offset, length) => {
      this.got.push({ src, bytes: Buffer.from(bytes.subarray(offset, offset + length)) });
    }, address);
    this.#queue = device.createSendQueue(
      this.endpoint,
      peer === undefined ? this.endpoint : { peer },
      { onUndelivered: (code) => this.undelivered.push(code) },
      { limit: 1_000_000, timeout: 15_000 },
    );
  }

  get texts(): string[] {
    return this.got.map(({ bytes }) => bytes.toString());
  }

  send(text: string | Uint8Array): void {
    const bytes = Buffer.from(text);
    expect(this.#queue.send(undefined, bytes, 0, bytes.length)).toMatch(/^(sent|queued)$/);
  }
}

export interface BootedGuest {
  host: Host;
  guest: EmulatedGuest;
  link: InProcessLink;
  /** What services did wrong: code, endpoint and reason. */
  errors: string[];
}

/** A guest in this process, which has announced as much as is said. */
export async function boot(options: EmulatedGuestOptions, announced: number): Promise<BootedGuest> {
  const host = new Host();
  const errors: string[] = [];
  const guest = new EmulatedGuest({
    onError: ({ code, message }) => errors.push(`${code}: ${message}`),
    ...options,
  });
  const link = attachInProcess(guest, host.device);
  onTestFinished(() => link.close());
  await until(() => host.announced.length >= announced);
  return { host, guest, link, errors };
}

/** A guest in this process that has announced its services. */
export async function bootInProcess(
  profile: ProfileName = "linux",
  services?: Readonly<Record<string, ServiceFactory>>,
): Promise<BootedGuest> {
  if (services === undefined) return boot({ profile }, 5);
  return boot({ profile, services }, Object.keys(services).length);
}

/** A service that keeps what it gets, with its context: to send from. */
export function probe(): { factory: ServiceFactory; contexts: ServiceContext[]; got: string[] } {
  const contexts: ServiceContext[] = [];
  const got: string[] = [];
  const factory = (context: ServiceContext): Service => {
    contexts.push(context);
    return {
      onMessage(src, bytes, offset, length) {
        got.push(
          `${src}>${context.address} ${Buffer.from(bytes.subarray(offset, offset + length)).toString()}`,
        );
        return true;
      },
    };
  };
  return { factory, contexts, got };
}

/** One message of the guest, each field of the header as it was written. */
export interface RawMessage {
  src: number;
  dst: number;
  reserved: number;
  len: number;
  payload: Buffer;
  /** Which transmit buffer it came in. */
  buffer: number;
}

/** A guest whose other side is a pair of device queues in the test's hands: for what a good device never does. */
export class RawHost {
  readonly guest: EmulatedGuest;
  readonly window: MemoryWindow;
  readonly kicks = [0, 0];
  readonly #response: DeviceQueue;
  readonly #request: DeviceQueue;

  constructor(profile: ProfileName, services: Readonly<Record<string, ServiceFactory>>, eventIndex = true) {
    this.guest = new EmulatedGuest({ profile, services });
    const { layout } = this.guest;
    const region = heapRegion(MEMORY_BASE, layout.size);
    const memory = new GuestMemory();
    memory.add(region);
    [this.window] = region.windows as [MemoryWindow];
    this.guest.boot({
      memory,
      window: this.window,
      nameService: true,
      indirect: false,
      eventIndex,
      kick: (queue) => {
        this.kicks[queue] = (this.kicks[queue] ?? 0) + 1;
      },
    });
    const setup = { memory, size: this.guest.profile.queueSize, indirect: false, eventIndex };
    this.#response = new DeviceQueue({ ...setup, addresses: layout.receiveRing }, 0);
    this.#request = new DeviceQueue({ ...setup, addresses: layout.transmitRing }, 0);
    this.guest.run();
  }

  /** Receive buffers that are posted and were not taken. */
  postedSince(taken: number): number {
    const available = this.window.u16[(this.guest.layout.receiveRing.available - MEMORY_BASE + 2) >> 1] ?? 0;
    return (available - taken) & 0xffff;
  }

  /** Writes a message; calls the guest if it wants to be called, and says whether it did. */
  send(
    src: number,
    dst: number,
    payload: Uint8Array | string,
    lie: { len?: number; used?: number } = {},
  ): boolean {
    expect(this.#response.peek()).toBe(true);
    const bytes = Buffer.from(payload);
    this.#response.writeMessage(Uint32Array.of(src, dst, 0, lie.len ?? bytes.length), bytes, 0, bytes.length);
    this.#response.complete(lie.used ?? 16 + bytes.length);
    const called = this.#response.publish();
    if (called) this.guest.called();
    return called;
  }

  /** Looks at the next message of the guest; it gives its buffer back only with `giveBack`. */
  take(giveBack = true): RawMessage | undefined {
    if (!this.#request.peek()) return undefined;
    const [segment] = this.#request.segments;
    if (segment === undefined) return undefined;
    const bytes = Buffer.from(segment.window.u8.buffer, segment.offset, this.#request.readableLength);
    const { layout, profile } = this.guest;
    const message = {
      src: bytes.readUInt32LE(0),
      dst: bytes.readUInt32LE(4),
      reserved: bytes.readUInt32LE(8),
      len: bytes.readUInt16LE(12),
      payload: Buffer.from(bytes.subarray(16)),
      buffer: (segment.offset + MEMORY_BASE - layout.transmitBuffers) / profile.bufferSize,
    };
    this.#request.complete(0);
    if (giveBack) this.publish();
    return message;
  }

  /** Shows the buffers that were taken; calls the guest if it wants that. */
  publish(): void {
    if (this.#request.publish()) this.guest.called();
  }

  takeAll(): RawMessage[] {
    const all: RawMessage[] = [];
    for (let message = this.take(); message !== undefined; message = this.take()) all.push(message);
    return all;
  }
}
