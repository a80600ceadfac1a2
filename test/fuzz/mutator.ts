import assert from "node:assert/strict";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { GuestMemory } from "../../rpmsg/memory/guest-memory.ts";
import { DeviceQueue } from "../../rpmsg/virtqueue/device-queue.ts";
import { windowedRegion } from "../rpmsg/support/windows.ts";
import type { Random } from "../support/random.ts";
import type { FuzzSession, FuzzTarget } from "./fuzz-target.ts";
import type { MutatorMap } from "./mutating-thread.ts";
import { MutatingThread } from "./mutating-thread.ts";

const GUARD = 256;
const SIZE = 16;
const PART = 2048;
/** Bytes of a buffer are below 0x80, so that one of these in a payload comes from nowhere in guest memory. */
const CANARY = 0xff;
const ADDRESSES = [0x1000_0000, 0x2000_0000, 0x3000_0000] as const;
const [RINGS, READABLE, WRITABLE] = [0, 1, 2].map((part) => GUARD + part * (PART + GUARD)) as [
  number,
  number,
  number,
];
const TOTAL = GUARD + 3 * (PART + GUARD);

/** Offsets of the parts of a ring from its start. */
const offsetOf = { descriptors: 0, available: 16 * SIZE, used: 16 * SIZE + 64 };
const RING = 1024;

const map: MutatorMap = {
  rings: [0, 1].map((queue) => ({
    descriptors: RINGS + RING * queue,
    available: RINGS + RING * queue + offsetOf.available,
    used: RINGS + RING * queue + offsetOf.used,
  })),
  size: SIZE,
  readable: { offset: READABLE, address: ADDRESSES[1], size: PART },
  writable: { offset: WRITABLE, address: ADDRESSES[2], size: PART },
};

/** A case has so many mutations at least, and goes on until so many messages were delivered or so often kicked. */
const MUTATIONS = 5000;
const MESSAGES = 20;
const KICKS = 20_000;
/** Kicks after which the thread surely gets a processor, should there be one only. */
const SLICE = 64;

/** A guest that changes its memory, from a thread of its own, while the device looks at it. */
export const mutator: FuzzTarget = {
  name: "mutator",
  shortCases: 20,
  open: () => new MutatedGuest(),
};

class MutatedGuest implements FuzzSession {
  readonly #shared = new SharedArrayBuffer(TOTAL);
  readonly #bytes = new Uint8Array(this.#shared);
  readonly #view = new DataView(this.#shared);
  readonly #shadow = new SharedArrayBuffer(TOTAL);
  readonly #memory = new GuestMemory();
  readonly #thread: MutatingThread;
  /** The queue that a message comes from. */
  #request: DeviceQueue | undefined;
  #delivered = 0;

  constructor() {
    for (const [part, address] of ADDRESSES.entries()) {
      const at = GUARD + part * (PART + GUARD);
      // Buffers cross windows.
      const [window, overlap] = part === 0 ? [PART, 0] : [PART / 2, 64];
      this.#memory.add(windowedRegion(address, address, PART, window, overlap, this.#shared, at));
    }
    this.#thread = new MutatingThread(this.#shared, this.#shadow, map, 7);
  }

  run(random: Random): string {
    this.#reset(random);
    this.#delivered = 0;
    const codes: string[] = [];
    const device = new RpmsgDevice({ onError: (_queue, { code }) => codes.push(code) });
    const endpoint = device.createEndpoint((...message) => this.#check(...message), 1030);
    const sender = device.createSendQueue(endpoint, { peer: 0x40 }, {}, { limit: 4096, timeout: 60_000 });
    const payload = new Uint8Array(100).fill(0x55);
    try {
      this.#thread.resume();
      this.#start(device);
      const from = this.#thread.count;
      const isShort = (kicks: number) => this.#delivered < MESSAGES && kicks < KICKS;
      for (let kicks = 0; isShort(kicks) || this.#thread.count - from < MUTATIONS; kicks++) {
        if (kicks % SLICE === SLICE - 1) this.#thread.yield();
        // Whatever the guest does, nothing is thrown.
        device.kicked(REQUEST_QUEUE);
        device.kicked(RESPONSE_QUEUE);
        sender.send(undefined, payload, 0, random.below(payload.length + 1));
        if (codes.length === 0) continue;
        device.reset();
        this.#start(device);
        codes.length = 0;
      }
      device.stop();
      device.reset();
    } finally {
      this.#thread.pause();
      device.close();
    }
    this.#assertIntact();
    return this.#delivered > 0 ? "accepted" : "nothing-delivered";
  }

  close(): Promise<void> {
    return this.#thread.close();
  }

  #reset(random: Random): void {
    this.#bytes.fill(CANARY);
    for (const part of [RINGS, READABLE, WRITABLE]) this.#bytes.fill(0, part, part + PART);
    for (let i = 0; i < PART; i++) this.#bytes[READABLE + i] = random.below(0x80);
    for (let at = READABLE; at < READABLE + PART; at += 64) {
      this.#view.setUint32(at + 4, 1030, true);
      this.#view.setUint16(at + 12, 48, true);
    }
    for (const ring of map.rings) {
      for (let i = 0; i < SIZE; i++) {
        const at = ring.descriptors + 16 * i;
        const part = i < SIZE / 2 ? map.readable : map.writable;
        this.#view.setUint32(at, part.address + 64 * random.below(PART / 64), true);
        this.#view.setUint32(at + 8, 64, true);
        this.#view.setUint16(at + 12, i < SIZE / 2 ? 0 : 2, true);
      }
    }
    new Uint8Array(this.#shadow).set(this.#bytes);
  }

  /** The driver starts anew: what it had offered is forgotten. */
  #start(device: RpmsgDevice): void {
    const [response, request] = map.rings.map(({ available, used }, queue) => {
      const start = ADDRESSES[0] + RING * queue;
      const addresses = {
        descriptors: start,
        available: start + offsetOf.available,
        used: start + offsetOf.used,
      };
      const base = this.#view.getUint16(available + 2, true);
      this.#view.setUint16(used + 2, base, true);
      const setup = { memory: this.#memory, size: SIZE, addresses, indirect: true, eventIndex: false };
      return new DeviceQueue(setup, base);
    }) as [DeviceQueue, DeviceQueue];
    this.#request = request;
    device.start({ response, request, nameService: true, call() {}, failed() {} });
    device.kicked(RESPONSE_QUEUE);
  }

  /** A payload is no longer than what was checked, and all of it lies in the guest's memory. */
  #check(_src: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#delivered++;
    const queue = this.#request as DeviceQueue;
    assert.ok(length <= queue.readableLength - 16, `${length} bytes of ${queue.readableLength - 16}`);
    assert.ok(offset + length <= bytes.length, "a payload that ends in its window");
    if (bytes.buffer === this.#shared) {
      const [segment] = queue.segments;
      assert.equal(bytes, segment?.window.u8);
      assert.equal(offset, (segment?.offset ?? 0) + 16);
      assert.ok(length + 16 <= (segment?.length ?? 0), "a payload that ends in its buffer");
    }
    for (let i = 0; i < length; i++)
      assert.ok((bytes[offset + i] as number) < 0x80, "a byte that no guest wrote");
  }

  /** Only what the device may write differs from what the guest wrote: the used rings and the writable buffers. */
  #assertIntact(): void {
    const shadow = new Uint8Array(this.#shadow);
    const written = [
      ...map.rings.map(({ used }) => [used, 6 + 8 * SIZE] as const),
      [WRITABLE, PART] as const,
    ];
    for (const [at, length] of written) shadow.set(this.#bytes.subarray(at, at + length), at);
    const differs = this.#bytes.findIndex((byte, i) => byte !== shadow[i]);
    assert.equal(differs, -1, `byte ${differs} was written`);
    for (const { used } of map.rings) {
      for (let i = 0; i < SIZE; i++) {
        const at = used + 4 + 8 * i;
        assert.ok(this.#view.getUint32(at, true) < SIZE, "a used element names a descriptor");
        assert.ok(this.#view.getUint32(at + 4, true) <= PART * SIZE, "a used element's length");
      }
    }
  }
}
