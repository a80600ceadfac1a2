import assert from "node:assert/strict";
import type { DeviceCounters } from "../../rpmsg/device.ts";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import type { Endpoint } from "../../rpmsg/endpoint.ts";
import { DeviceQueue } from "../../rpmsg/virtqueue/device-queue.ts";
import type { Random } from "../support/random.ts";
import type { FuzzTarget } from "./fuzz-target.ts";
import type { Shape } from "./hostile-driver.ts";
import { HostileDriver, LENGTHS, placeRing } from "./hostile-driver.ts";
import { HostileMemory } from "./hostile-memory.ts";
import { judge, keyOf, LIMIT, writeRandom } from "./name-service.ts";
import type { PlainRingOptions } from "./plain-ring.ts";
import { bytesOf, lengthOf, PlainRing, writeTo } from "./plain-ring.ts";

const HEADER = 16;
const ANY = 0xffff_ffff;
const NAME_SERVICE = 53;
/** One in the table's array, one in its map. */
const LOCAL = [1030, 70_000] as const;
const DESTINATIONS = [
  1030,
  1030,
  70_000,
  NAME_SERVICE,
  NAME_SERVICE,
  NAME_SERVICE,
  0,
  1031,
  65_535,
  ANY,
] as const;

/**
 * A whole device with both rings: headers and name-service messages of every kind, in chains of every kind, and
 * messages the other way into whatever buffers the guest has posted.
 */
export const messages: FuzzTarget = {
  name: "messages",
  shortCases: 1500,
  open() {
    const memory = new HostileMemory();
    return { run: (random) => new MessageCase(memory, random).run(), close() {} };
  },
};

/** Bytes of the buffers that the guest posts: some are too short for a header. */
const RECEIVE_LENGTHS = [16, 17, 56, 100, 512, 512, 512, 516, 1000, 8] as const;

/** What was delivered: endpoint, source and payload in hex. */
type Delivery = readonly [local: number, src: number, payload: string];

class MessageCase {
  readonly #memory: HostileMemory;
  readonly #random: Random;
  readonly #rings: readonly [response: PlainRingOptions, request: PlainRingOptions];
  readonly #plain: readonly [response: PlainRing, request: PlainRing];
  readonly #device: RpmsgDevice;
  readonly #endpoints: Endpoint[] = [];
  readonly #nameService: boolean;

  /** What the device did, and what it had to do. */
  readonly #received: Delivery[] = [];
  readonly #events: string[] = [];
  readonly #failures: (readonly [queue: number, code: string])[] = [];
  readonly #expected: Delivery[] = [];
  readonly #expectedEvents: string[] = [];
  readonly #expectedFailures: (readonly [queue: number, codes: Set<string>])[] = [];
  readonly #announced: string[] = [];
  readonly #peers = new Map<number, number>();
  readonly #counters: DeviceCounters = {
    messagesToGuest: 0,
    bytesToGuest: 0,
    messagesFromGuest: 0,
    bytesFromGuest: 0,
    malformed: 0,
    unknownAddress: 0,
    nameServiceOff: 0,
    nameServiceMalformed: 0,
    nameServiceLimit: 0,
    nameServiceIgnored: 0,
    brokenQueues: 0,
  };
  /** No buffer for a message: the next ones wait behind it. */
  #waiting = false;

  constructor(memory: HostileMemory, random: Random) {
    this.#memory = memory;
    this.#random = random;
    memory.reset();
    const response = placeRing(memory, random, 0);
    const request = placeRing(memory, random, 2048);
    this.#rings = [response.plain, request.plain];
    this.#fill();
    memory.copyToOracle();
    this.#plain = [new PlainRing(memory.plain, response.plain), new PlainRing(memory.plain, request.plain)];
    this.#nameService = random.chance(0.8);
    this.#device = new RpmsgDevice(
      {
        onAnnounced: (announcement) => this.#events.push(`up ${keyOf(announcement)}`),
        onWithdrawn: (announcement) => this.#events.push(`down ${keyOf(announcement)}`),
      },
      { maxGuestAnnouncements: LIMIT },
    );
    for (const local of LOCAL) this.#endpoints.push(this.#endpoint(local));
    this.#device.start({
      response: new DeviceQueue(response.setup, response.plain.base),
      request: new DeviceQueue(request.setup, request.plain.base),
      nameService: this.#nameService,
      call() {},
      failed: (queue, { code }) => this.#failures.push([queue, code]),
    });
  }

  run(): string {
    try {
      const before = this.#random.chance(0.5);
      if (before) this.#requests();
      this.#responses();
      if (!before) this.#requests();
      this.#device.stop();
      for (const ring of this.#plain) ring.show();
      this.#compare();
      this.#device.reset();
      this.#expectedEvents.push(...this.#announced.map((key) => `down ${key}`));
      assert.deepEqual(this.#events, this.#expectedEvents);
    } finally {
      // What it has put off to a later turn would fall into the next case.
      this.#device.close();
    }
    return this.#failures[0]?.[1] ?? "accepted";
  }

  #compare(): void {
    assert.deepEqual(this.#received, this.#expected);
    assert.deepEqual(this.#events, this.#expectedEvents);
    assert.deepEqual(this.#device.counters, this.#counters);
    assert.deepEqual([...this.#device.guestAnnouncements].map(keyOf), this.#announced);
    assert.equal(this.#failures.length, this.#expectedFailures.length, "queues that the guest broke");
    for (const [i, [queue, codes]] of this.#expectedFailures.entries()) {
      const [broken, code] = this.#failures[i] ?? [];
      assert.ok(
        broken === queue && codes.has(code ?? ""),
        `${broken} ${code}, not ${queue} ${[...codes].join()}`,
      );
    }
    for (const { address, peer } of this.#endpoints) assert.equal(peer, this.#peers.get(address), "a peer");
    // When the device asks for kicks is its own affair, and how it says so too.
    const notes = this.#rings.flatMap(({ used, size }) => [used, used + 4 + 8 * size]);
    this.#memory.assertAsOracle(notes);
  }

  #endpoint(local: number): Endpoint {
    return this.#device.createEndpoint((src, bytes, offset, length) => {
      this.#received.push([local, src, hex(bytes.subarray(offset, offset + length))]);
    }, local);
  }

  #fill(): void {
    const [response, request] = this.#rings;
    const { buffers } = this.#memory;
    const random = this.#random;
    const driver = (ring: PlainRingOptions, lengths: Shape["lengths"], writable: number) => {
      const { base } = ring;
      const used = this.#memory.view.getUint16(ring.used + 2, true);
      const shape = { wild: 0.03, faults: 0.15, regions: buffers, lengths, writable };
      const hostile = new HostileDriver(this.#memory, random, ring, shape);
      hostile.write({ base, used });
      return hostile.chains;
    };
    driver(response, RECEIVE_LENGTHS, 1);
    for (const { readable } of driver(request, LENGTHS, 0.2)) this.#writeMessage(readable);
  }

  /** A header that fits the chain, or nearly. */
  #writeMessage(readable: readonly { address: number; length: number }[]): void {
    const random = this.#random;
    const { shared } = this.#memory;
    const pieces = readable.flatMap(({ address, length }) => shared.range(BigInt(address), length) ?? []);
    const room = lengthOf(pieces);
    const bytes = Buffer.alloc(Math.max(room, HEADER + 40));
    for (let i = HEADER; i < bytes.length; i++) bytes[i] = random.below(256);
    const dst = random.pick(DESTINATIONS);
    bytes.writeUInt32LE(random.pick([1024, 1025, NAME_SERVICE, 0, ANY, random.below(2 ** 32)]), 0);
    bytes.writeUInt32LE(dst, 4);
    bytes.writeUInt32LE(random.below(2 ** 32), 8);
    const payload = Math.max(room - HEADER, 0);
    const length = random.chance(0.8)
      ? random.pick([payload, random.below(payload + 1)])
      : random.pick([0, 496, 497, 0xffff, payload + 1]);
    bytes.writeUInt16LE(dst === NAME_SERVICE && random.chance(0.8) ? 40 : Math.min(length, 0xffff), 12);
    bytes.writeUInt16LE(random.below(0x1_0000), 14);
    if (dst === NAME_SERVICE) writeRandom(random, bytes, HEADER);
    writeTo(shared, pieces, bytes.subarray(0, room));
  }

  /** The driver kicks the request queue. */
  #requests(): void {
    this.#device.kicked(REQUEST_QUEUE);
    const ring = this.#plain[REQUEST_QUEUE];
    for (;;) {
      const look = ring.look();
      if (look === "empty") return;
      if ("broken" in look) {
        this.#broke(REQUEST_QUEUE, look.broken);
        return;
      }
      ring.giveBack(look.head, 0);
      this.#receive(bytesOf(this.#memory.plain, look.readable));
    }
  }

  /** u32 src; u32 dst; u32 reserved; u16 len; u16 flags */
  #receive(bytes: Uint8Array): void {
    const counters = this.#counters;
    const view = new DataView(bytes.buffer);
    if (bytes.length < HEADER || view.getUint16(12, true) > bytes.length - HEADER) {
      counters.malformed++;
      return;
    }
    const src = view.getUint32(0, true);
    const dst = view.getUint32(4, true);
    const length = view.getUint16(12, true);
    if (dst !== NAME_SERVICE && !LOCAL.some((local) => local === dst)) {
      counters.unknownAddress++;
      return;
    }
    counters.messagesFromGuest++;
    counters.bytesFromGuest += length;
    if (dst !== NAME_SERVICE) {
      this.#expected.push([dst, src, hex(bytes.subarray(HEADER, HEADER + length))]);
      if (src !== ANY && src !== NAME_SERVICE) this.#peers.set(dst, src);
      return;
    }
    if (!this.#nameService) {
      counters.nameServiceOff++;
      return;
    }
    const verdict = judge({ bytes, offset: HEADER, length }, this.#announced, this.#expectedEvents);
    if (verdict === "malformed") counters.nameServiceMalformed++;
    else if (verdict === "limit") counters.nameServiceLimit++;
    else if (verdict !== "accepted") counters.nameServiceIgnored++;
  }

  /** The driver kicks the response queue, and the host sends. */
  #responses(): void {
    const random = this.#random;
    const [endpoint] = this.#endpoints as [Endpoint];
    this.#device.kicked(RESPONSE_QUEUE);
    this.#room();
    const queue = this.#device.createSendQueue(
      endpoint,
      { peer: 1024 },
      {},
      { limit: 2 ** 20, timeout: 2 ** 30 },
    );
    for (let left = random.below(6); left > 0; left--) {
      const payload = Uint8Array.from(
        { length: random.pick([0, 1, 16, 40, random.below(500)]) },
        (_, i) => left + i,
      );
      const dst = random.pick([1024, 0, 0xffff_fffe]);
      const code = queue.send(dst, payload, 0, payload.length);
      assert.equal(code, this.#send(endpoint.address, dst, payload));
    }
    // What waits would wait beyond the end of the case.
    queue.close();
  }

  #send(src: number, dst: number, payload: Uint8Array): string {
    if (this.#waiting) return "queued";
    const room = this.#room();
    if (room === undefined) {
      this.#waiting = true;
      return "queued";
    }
    if (HEADER + payload.length > lengthOf(room.writable)) return "too-large";
    const message = new Uint8Array(HEADER + payload.length);
    const view = new DataView(message.buffer);
    view.setUint32(0, src, true);
    view.setUint32(4, dst, true);
    view.setUint16(12, payload.length, true);
    message.set(payload, HEADER);
    writeTo(this.#memory.plain, room.writable, message);
    this.#plain[RESPONSE_QUEUE].giveBack(room.head, message.length);
    this.#counters.messagesToGuest++;
    this.#counters.bytesToGuest += payload.length;
    return "sent";
  }

  /** The buffer that the next message goes to. */
  #room() {
    if (this.#expectedFailures.some(([queue]) => queue === RESPONSE_QUEUE)) return undefined;
    const look = this.#plain[RESPONSE_QUEUE].look();
    if (look === "empty") return undefined;
    if ("broken" in look) this.#broke(RESPONSE_QUEUE, look.broken);
    else if (lengthOf(look.writable) < HEADER) this.#broke(RESPONSE_QUEUE, new Set(["buffer-too-small"]));
    else return look;
    return undefined;
  }

  #broke(queue: number, codes: Set<string>): void {
    this.#expectedFailures.push([queue, codes]);
    this.#counters.brokenQueues++;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
