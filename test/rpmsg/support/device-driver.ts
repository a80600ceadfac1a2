import { setImmediate as nextTurn } from "node:timers/promises";
import type { RpmsgDevice } from "../../../rpmsg/device.ts";
import { REQUEST_QUEUE, RESPONSE_QUEUE } from "../../../rpmsg/device.ts";
import type { GuestError } from "../../../rpmsg/errors.ts";
import type { MemoryRegion, MemoryWindow } from "../../../rpmsg/memory/guest-memory.ts";
import { GuestMemory } from "../../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import { DeviceQueue } from "../../../rpmsg/virtqueue/device-queue.ts";
import { DriverQueue } from "../../../rpmsg/virtqueue/driver-queue.ts";
import type { RingAddresses } from "../../../rpmsg/virtqueue/layout.ts";
import { ringSizes } from "../../../rpmsg/virtqueue/layout.ts";

const BASE = 0x10_0000;
const MEMORY = 4 * 1024 * 1024;

/** What a buffer holds before the device writes it: bytes that stay this value were not touched. */
export const UNTOUCHED = 0xee;

/** A message as the driver finds it in queue 0, each field of the header as it was written. */
export interface DriverMessage {
  src: number;
  dst: number;
  reserved: number;
  len: number;
  flags: number;
  /** `len` bytes after the header. */
  payload: Buffer;
  /** Length of the used element. */
  used: number;
  /** The whole buffer. */
  buffer: Buffer;
}

export interface DriverOptions {
  /** Entries of each queue. */
  size?: number;
  nameService?: boolean;
  eventIndex?: boolean;
  indirect?: boolean;
}

/** Both rings and their buffers, by hand, in the first window of a region. */
export class DriverRings {
  readonly memory = new GuestMemory();
  readonly window: MemoryWindow;
  readonly rings: readonly [response: RingAddresses, request: RingAddresses];
  readonly response: DriverQueue;
  readonly request: DriverQueue;
  protected readonly setup: { memory: GuestMemory; size: number; indirect: boolean; eventIndex: boolean };
  /** Pieces of the posted receive buffers, by head. */
  readonly #posted = new Map<number, { address: number; length: number }[]>();
  #next: number;

  constructor(region: MemoryRegion, options: DriverOptions = {}) {
    this.memory.add(region);
    [this.window] = region.windows as [MemoryWindow];
    this.#next = region.guestAddress;
    const size = options.size ?? 16;
    const sizes = ringSizes(size);
    const ring = (): RingAddresses => ({
      descriptors: this.allocate(sizes.descriptors),
      available: this.allocate(sizes.available),
      used: this.allocate(sizes.used),
    });
    this.rings = [ring(), ring()];
    this.setup = {
      memory: this.memory,
      size,
      indirect: options.indirect ?? false,
      eventIndex: options.eventIndex ?? false,
    };
    this.response = new DriverQueue({ ...this.setup, addresses: this.rings[RESPONSE_QUEUE] });
    this.request = new DriverQueue({ ...this.setup, addresses: this.rings[REQUEST_QUEUE] });
  }

  /** Takes memory; aligned to 64 bytes, plus `shift`. */
  allocate(bytes: number, shift = 0): number {
    const address = this.#next + shift;
    this.#next += Math.ceil((bytes + shift) / 64) * 64;
    if (this.#next > this.window.guestAddress + this.window.size)
      throw new RangeError("the test's memory is used up");
    return address;
  }

  /** Posts a receive buffer made of pieces of these lengths, and shows it without a kick. */
  post(...lengths: number[]): void {
    const pieces = lengths.map((length) => ({ address: this.allocate(length), length }));
    this.postAt(...pieces);
  }

  postAt(...pieces: { address: number; length: number }[]): void {
    for (const { address, length } of pieces) this.bytes(address, length).fill(UNTOUCHED);
    const head = this.response.addChain(pieces.map((piece) => ({ ...piece, writable: true })));
    if (head === -1) throw new RangeError("no descriptor is free");
    this.#posted.set(head, pieces);
    this.response.publish();
  }

  /** Takes the next message of queue 0; its buffer is not posted again. */
  receive(): DriverMessage | undefined {
    const head = this.response.popUsed();
    if (head === -1) return undefined;
    const pieces = this.#posted.get(head) ?? [];
    const buffer = Buffer.concat(pieces.map(({ address, length }) => this.bytes(address, length)));
    const len = buffer.readUInt16LE(12);
    return {
      src: buffer.readUInt32LE(0),
      dst: buffer.readUInt32LE(4),
      reserved: buffer.readUInt32LE(8),
      len,
      flags: buffer.readUInt16LE(14),
      payload: buffer.subarray(16, 16 + len),
      used: this.response.usedLength,
      buffer,
    };
  }

  receiveAll(): DriverMessage[] {
    const all: DriverMessage[] = [];
    for (let next = this.receive(); next !== undefined; next = this.receive()) all.push(next);
    return all;
  }

  /** Puts a message in queue 1 without a kick. */
  offer(src: number, dst: number, payload: Uint8Array | string = ""): void {
    this.offerBytes(message(src, dst, payload));
  }

  /** Puts these bytes in queue 1, cut in pieces of these lengths, the rest in the last one. */
  offerBytes(bytes: Uint8Array, cuts: readonly number[] = [], shift = 0): void {
    const pieces: { address: number; length: number; writable: boolean }[] = [];
    let at = 0;
    for (const length of [...cuts, bytes.length - cuts.reduce((sum, cut) => sum + cut, 0)]) {
      const address = this.allocate(Math.max(length, 1), shift);
      this.bytes(address, length).set(bytes.subarray(at, at + length));
      pieces.push({ address, length, writable: false });
      at += length;
    }
    if (this.request.addChain(pieces) === -1) throw new RangeError("no descriptor is free");
    this.request.publish();
  }

  /** Takes the buffers that came back in queue 1: the length that the device says it wrote, of each. */
  returned(): number[] {
    const lengths: number[] = [];
    while (this.request.popUsed() !== -1) lengths.push(this.request.usedLength);
    return lengths;
  }

  bytes(address: number, length: number): Buffer {
    const { u8, guestAddress } = this.window;
    return Buffer.from(u8.buffer, address - guestAddress, length);
  }
}

/** The driver side with a device: memory on the heap, and nothing done that the test does not ask for. */
export class Driver extends DriverRings {
  /** Calls of the device, by queue. */
  readonly calls = [0, 0];
  readonly failures: { queue: number; code: string }[] = [];
  #device: RpmsgDevice;
  readonly #nameService: boolean;
  readonly #queues: [response?: DeviceQueue, request?: DeviceQueue] = [];

  constructor(device: RpmsgDevice, options: DriverOptions = {}) {
    super(heapRegion(BASE, MEMORY), options);
    this.#device = device;
    this.#nameService = options.nameService ?? true;
  }

  /** Starts the device at these positions, as SET_VRING_BASE and ENABLE do. */
  start(bases: readonly [response: number, request: number] = [0, 0]): this {
    const queue = (index: 0 | 1) => {
      this.#queues[index] = new DeviceQueue({ ...this.setup, addresses: this.rings[index] }, bases[index]);
      return this.#queues[index];
    };
    this.#device.start({
      response: queue(RESPONSE_QUEUE),
      request: queue(REQUEST_QUEUE),
      nameService: this.#nameService,
      call: (index) => {
        this.calls[index] = (this.calls[index] ?? 0) + 1;
      },
      failed: (index, error: GuestError) => this.failures.push({ queue: index, code: error.code }),
    });
    return this;
  }

  /** Posts receive buffers, starts the device and kicks queue 0: what a Linux guest does. */
  boot(buffers = 8, length = 512): this {
    for (let i = 0; i < buffers; i++) this.post(length);
    this.start();
    this.kick(RESPONSE_QUEUE);
    return this;
  }

  /** What is done from now on is done to this device. */
  use(device: RpmsgDevice): void {
    this.#device = device;
  }

  /** Another device goes on with these queues, which never stopped. */
  handOver(device: RpmsgDevice): void {
    this.use(device);
    this.start([queueBase(this.#queues[RESPONSE_QUEUE]), queueBase(this.#queues[REQUEST_QUEUE])]);
  }

  kick(queue: number): void {
    this.#device.kicked(queue);
  }

  /** Puts a message in queue 1 and kicks. */
  send(src: number, dst: number, payload: Uint8Array | string = ""): void {
    this.offer(src, dst, payload);
    this.kick(REQUEST_QUEUE);
  }
}

function queueBase(queue: DeviceQueue | undefined): number {
  return queue?.position.base ?? 0;
}

/** Bytes of a message, its `len` as told or as it is. */
export function message(
  src: number,
  dst: number,
  payload: Uint8Array | string = "",
  fields: { len?: number; reserved?: number; flags?: number } = {},
): Buffer {
  const body = Buffer.from(payload);
  const bytes = Buffer.alloc(16 + body.length);
  bytes.writeUInt32LE(src, 0);
  bytes.writeUInt32LE(dst, 4);
  bytes.writeUInt32LE(fields.reserved ?? 0, 8);
  bytes.writeUInt16LE(fields.len ?? body.length, 12);
  bytes.writeUInt16LE(fields.flags ?? 0, 14);
  body.copy(bytes, 16);
  return bytes;
}

/** A name-service message, as the guest would write it. */
export function nameServiceMessage(name: string, address: number, flags = 0, length = 40): Buffer {
  const bytes = Buffer.alloc(Math.max(length, 40));
  bytes.write(name, 0, 32, "latin1");
  bytes.writeUInt32LE(address, 32);
  bytes.writeUInt32LE(flags, 36);
  return bytes.subarray(0, length);
}

/** Lets everything that is due in the next turns of the event loop happen. */
export async function turns(count = 4): Promise<void> {
  for (let i = 0; i < count; i++) await nextTurn();
}
