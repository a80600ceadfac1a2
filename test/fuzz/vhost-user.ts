import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { RpmsgDevice } from "../../rpmsg/device.ts";
import { CodedError } from "../../rpmsg/errors.ts";
import { GuestMemory } from "../../rpmsg/memory/guest-memory.ts";
import type { MappedRegion } from "../../rpmsg/memory/mapped-memory.ts";
import { mappedRegion } from "../../rpmsg/memory/mapped-memory.ts";
import { createEventfd, signalEventfd } from "../../rpmsg/posix/eventfd.ts";
import { Poller } from "../../rpmsg/posix/poller.ts";
import { createMemory } from "../../rpmsg/posix/shared-memory.ts";
import { closeFd, recvmsg, sendmsg, socketPair } from "../../rpmsg/posix/unix-socket.ts";
import { VhostUserBackend } from "../../rpmsg/vhost-user/backend.ts";
import { inflightPayload, request, statePayload, u64Payload } from "../../rpmsg/vhost-user/messages.ts";
import { DriverQueue } from "../../rpmsg/virtqueue/driver-queue.ts";
import { collectGarbage, descriptorCount, mappingCount, memoryRanges } from "../rpmsg/posix/support.ts";
import { fdPayload, frame, slot, table } from "../rpmsg/support/vhost-user-frames.ts";
import { count } from "../support/figures.ts";
import type { Random } from "../support/random.ts";
import { DescriptorZoo, ZOO } from "./descriptor-zoo.ts";
import type { FuzzSession, FuzzTarget } from "./fuzz-target.ts";

const MEMORY = "fuzz-guest";
const MEMORY_SIZE = 65536;
const GUEST_BASE = 0x4000_0000;
const USER_BASE = 0x7f12_3400_0000;
const WHOLE = { guest: GUEST_BASE, size: MEMORY_SIZE, user: USER_BASE, offset: 0 };
const QUEUE_SIZE = 16;
const ADDRESS = 1030;
/** Descriptors, available ring and used ring of the two queues; messages behind them. */
const RINGS = [0, 1].map((i) => ({
  descriptors: 4096 * i,
  available: 4096 * i + 1024,
  used: 4096 * i + 2048,
}));
const MESSAGE = 8192;

const PROTOCOL_FEATURES = 0x1_b22bn;
const FEATURES = 0x1_7000_0001n;
const LOG_ALL = 1n << 26n;

/** Numbers that are likely to mean something as an index, a size, an address or a set of bits. */
const NUMBERS = [
  0n,
  1n,
  2n,
  3n,
  7n,
  16n,
  40n,
  255n,
  256n,
  4095n,
  4096n,
  65535n,
  65536n,
  0x7fff_ffffn,
  0xffff_ffffn,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 4096n,
  2n ** 64n - 1n,
  BigInt(GUEST_BASE),
  BigInt(USER_BASE),
  FEATURES,
  FEATURES | LOG_ALL,
  PROTOCOL_FEATURES,
] as const;

/** Growth that is not a leak: heap that the collector keeps. */
const MiB = 2 ** 20;
const RSS_MARGIN = 5 * MiB;
/** Cases after which memory is compared: until then code is compiled and buffers grow. */
const WARM = 2000;

interface Message {
  id: number;
  payload: Uint8Array;
  fds: readonly number[];
}

/**
 * Messages of a hostile frontend, in every state of the protocol and with every kind of descriptor: an error or a close
 * is all that may come of it, nothing is left behind, and a good frontend is served afterwards, on the same connection
 * where that still stands.
 */
export const vhostUser: FuzzTarget = {
  name: "vhost-user",
  shortCases: 400,
  open: () => new Fuzz(),
};

class Fuzz implements FuzzSession {
  readonly #poller = new Poller({
    onError: (error) => {
      this.#failure = error;
    },
  });
  readonly #zoo = new DescriptorZoo();
  /** The guest's memory, which the frontend maps too. */
  readonly #region: MappedRegion = mappedRegion(
    createMemory(MEMORY, MEMORY_SIZE),
    0,
    GUEST_BASE,
    GUEST_BASE,
    MEMORY_SIZE,
  );
  readonly #descriptors: number;
  readonly #open: number;
  #failure: unknown;
  #cases = 0;
  #messages = 0;
  /** Bytes once it was warm, and at the end. */
  #rss = 0;
  #rssAtEnd = 0;
  #mappings = 0;

  constructor() {
    // The collector's space for young objects grows by up to 30 MiB when it likes: that would hide a leak, or be one.
    setFlagsFromString("--semi-space-growth-factor=1");
    this.#open = descriptorCount();
    // Ours: the poller has its epoll descriptor, what the runtime opened for the first of each kind stays.
    this.#descriptors = this.#open - this.#zoo.count - 2;
  }

  async run(random: Random): Promise<string> {
    if (++this.#cases === WARM) {
      await collectAll();
      this.#rss = process.memoryUsage.rss();
      this.#mappings = mappingCount();
    }
    this.#region.windows[0]?.u8.fill(0);
    const connection = new HostileFrontend(this.#poller, this.#region, this.#zoo.all);
    let outcome: string;
    try {
      outcome = await connection.run(random);
    } finally {
      this.#messages += connection.messages;
      await connection.close();
    }
    assert.equal(this.#failure, undefined);
    assert.equal(descriptorCount(), this.#open, "descriptors are left");
    return outcome;
  }

  figures(): string {
    const messages = `${count(this.#messages)} messages`;
    if (this.#cases < 2 * WARM) return messages;
    const more = ((this.#rssAtEnd - this.#rss) / MiB).toFixed(1);
    return `${messages}; RSS ${(this.#rssAtEnd / MiB).toFixed(1)} MiB, ${more} MiB more than after ${count(WARM)} cases`;
  }

  async close(): Promise<void> {
    this.#region.close();
    this.#zoo.close();
    this.#poller.close();
    await collectAll();
    this.#rssAtEnd = process.memoryUsage.rss();
    assert.equal(descriptorCount(), this.#descriptors, "descriptors are left");
    assert.deepEqual([...memoryRanges(MEMORY), ...memoryRanges(ZOO)], [], "mappings are left");
    if (this.#cases < 2 * WARM) return;
    const mappings = mappingCount() - this.#mappings;
    assert.ok(mappings < WARM / 20, `${mappings} more mappings after ${this.#cases - WARM} cases`);
    const rss = this.#rssAtEnd - this.#rss;
    assert.ok(rss < RSS_MARGIN, `${rss} more bytes after ${this.#cases - WARM} cases`);
  }
}

/** What finalizers hold is free a turn later. */
async function collectAll(): Promise<void> {
  for (let i = 0; i < 4; i++) await collectGarbage();
}

class HostileFrontend {
  readonly #fd: number;
  readonly #backend: VhostUserBackend;
  readonly #device = new RpmsgDevice();
  readonly #zoo: readonly number[];
  readonly #region: MappedRegion;
  readonly #received: string[] = [];
  readonly #own = [createEventfd(), createEventfd()];
  readonly #refused = new Set<string>();
  /** Sent so far, whole or not. */
  messages = 0;
  /** The end of the backend's side. */
  #end: { error: Error | undefined } | undefined;
  #replies = Buffer.alloc(0);

  constructor(poller: Poller, region: MappedRegion, zoo: readonly number[]) {
    this.#region = region;
    this.#zoo = zoo;
    const endpoint = this.#device.createEndpoint((_src, bytes, offset, length) => {
      this.#received.push(Buffer.from(bytes.subarray(offset, offset + length)).toString());
    }, ADDRESS);
    const queue = this.#device.createSendQueue(
      endpoint,
      { peer: 0x400 },
      { onSent() {} },
      { limit: 1e6, timeout: 1e6 },
    );
    // Something to send, so that the response queue is written whenever it runs.
    for (let i = 0; i < 4; i++) queue.send(undefined, Buffer.from(`to the guest ${i}`), 0, 12, undefined);
    const [ours, theirs] = socketPair();
    this.#fd = ours;
    this.#backend = new VhostUserBackend(theirs, poller, this.#device, {
      onRefused: (error) => this.#refused.add(error.code),
      onClose: (error) => {
        this.#end = { error };
      },
    });
  }

  /** @returns `accepted` where the connection still stands, else the code with which it ended, or `closed` */
  async run(random: Random): Promise<string> {
    const handshake = this.#handshake();
    // As far as that the state is a good one; the rest is mutated or anything.
    const good = random.below(handshake.length + 1);
    for (const message of handshake.slice(0, good)) this.#send(message);
    await this.#settle(random.below(3));
    let whole = true;
    for (let left = random.between(1, 20); left > 0 && this.#end === undefined; left--) {
      const next = handshake[good + random.below(4)];
      const message =
        next !== undefined && random.chance(0.5) ? this.#mutate(next, random) : this.#any(random);
      whole = this.#sendBadly(message, random) && whole;
      if (random.chance(0.3)) signalEventfd(random.pick(this.#own as [number, number]));
      if (random.chance(0.4)) await this.#settle(random.between(1, 2));
    }
    await this.#settle(3);
    if (this.#end === undefined && whole) await this.#serveGood();
    return this.#outcome();
  }

  async close(): Promise<void> {
    closeFd(this.#fd);
    await this.#settle(1);
    // Its own socket among the descriptors that it was sent keeps a connection open.
    this.#backend.close();
    for (const fd of this.#own) closeFd(fd);
    assert.equal(this.#device.state, "detached");
    this.#device.close();
  }

  #outcome(): string {
    if (this.#end === undefined) return [...this.#refused].toSorted()[0] ?? "accepted";
    const { error } = this.#end;
    if (error === undefined) return "closed";
    if (!(error instanceof CodedError)) throw new Error("no error of the protocol", { cause: error });
    return error.code;
  }

  /** A good frontend on the same connection is served, whatever was before. */
  async #serveGood(): Promise<void> {
    this.#send({ id: request.RESET_DEVICE, payload: new Uint8Array(), fds: [] });
    // Until then the device may run, and take what is in its rings.
    await this.#settle(3);
    this.#received.length = 0;
    const { window, driver } = this.#newDriver();
    const bytes = Buffer.from("0004000006040000000000000500000068656c6c6f", "hex");
    window.u8.set(bytes, MESSAGE);
    driver.add(GUEST_BASE + MESSAGE, bytes.length, false);
    driver.publish();
    for (const message of this.#handshake()) this.#send(message);
    for (let i = 0; i < 50 && this.#received.length === 0 && this.#end === undefined; i++)
      await this.#settle(1);
    if (this.#end !== undefined) throw new Error("a good frontend is refused", { cause: this.#end.error });
    assert.deepEqual(this.#received, ["hello"]);
    assert.equal(driver.popUsed(), 0);
  }

  #newDriver() {
    const [window] = this.#region.windows;
    assert.ok(window !== undefined);
    window.u8.fill(0);
    const memory = new GuestMemory();
    memory.add({ ...this.#region, close() {} });
    const [, ring] = RINGS as [Ring, Ring];
    const addresses = {
      descriptors: GUEST_BASE + ring.descriptors,
      available: GUEST_BASE + ring.available,
      used: GUEST_BASE + ring.used,
    };
    return {
      window,
      driver: new DriverQueue({ memory, size: QUEUE_SIZE, addresses, indirect: true, eventIndex: true }),
    };
  }

  /** All that a good frontend says, without need_reply. */
  #handshake(): Message[] {
    const [memory] = [this.#region.fd];
    const message = (id: number, payload: Uint8Array = new Uint8Array(), fds: number[] = []): Message => ({
      id,
      payload,
      fds,
    });
    const ring = (index: number): Message[] => [
      message(request.SET_VRING_NUM, statePayload(index, QUEUE_SIZE)),
      message(request.SET_VRING_BASE, statePayload(index, 0)),
      message(request.SET_VRING_ADDR, addressPayload(index)),
      message(request.SET_VRING_KICK, fdPayload(index), this.#own.slice(index, index + 1)),
      message(request.SET_VRING_CALL, fdPayload(index), this.#own.slice(index, index + 1)),
      message(request.SET_VRING_ERR, fdPayload(index), this.#own.slice(index, index + 1)),
    ];
    return [
      message(request.GET_FEATURES),
      message(request.GET_PROTOCOL_FEATURES),
      message(request.SET_PROTOCOL_FEATURES, u64Payload(PROTOCOL_FEATURES)),
      message(request.SET_OWNER),
      message(request.SET_FEATURES, u64Payload(FEATURES)),
      message(request.GET_INFLIGHT_FD, inflight(0)),
      message(request.SET_MEM_TABLE, table([WHOLE]), [memory]),
      ...ring(0),
      ...ring(1),
      message(request.SET_VRING_ENABLE, statePayload(0, 1)),
      message(request.SET_VRING_ENABLE, statePayload(1, 1)),
      message(request.SET_LOG_FD, new Uint8Array(), this.#own.slice(0, 1)),
      message(request.GET_STATUS),
    ];
  }

  /** A request that the backend knows, with contents of its kind. */
  #any(random: Random): Message {
    const id = random.chance(0.9)
      ? random.pick(Object.values(request) as unknown as [number])
      : random.below(2 ** 32);
    const payload = Buffer.alloc(random.pick([0, 8, 8, 8, 12, 16, 20, 24, 40, 40, 72, random.below(300)]));
    for (let at = 0; at + 8 <= payload.length; at += 8) payload.writeBigUInt64LE(random.pick(NUMBERS), at);
    if (id === request.ADD_MEM_REG && random.chance(0.7))
      payload.set(slot(WHOLE).subarray(0, payload.length));
    return { id, payload, fds: this.#anyFds(random) };
  }

  #anyFds(random: Random): number[] {
    const count = random.pick([0, 0, 1, 1, 1, 2, 8, random.below(80)]);
    const all = [...this.#zoo, ...this.#own, this.#region.fd, this.#fd] as unknown as [number];
    return Array.from({ length: count }, () => random.pick(all));
  }

  /** One thing about a good message is another. */
  #mutate(message: Message, random: Random): Message {
    const payload = Buffer.from(message.payload);
    switch (random.below(5)) {
      case 0:
        return { ...message, fds: this.#anyFds(random) };
      case 1:
        return { ...message, payload: payload.subarray(0, random.below(payload.length + 1)) };
      case 2:
        return { ...message, payload: Buffer.concat([payload, Buffer.alloc(random.below(40))]) };
      case 3:
        if (payload.length >= 8)
          payload.writeBigUInt64LE(random.pick(NUMBERS), random.below(payload.length / 8) * 8);
        return { ...message, payload };
      default:
        if (payload.length > 0) payload[random.below(payload.length)] = random.below(256);
        return { ...message, payload };
    }
  }

  #send({ id, payload, fds }: Message): void {
    const bytes = frame(id, payload);
    if (sendmsg(this.#fd, bytes, 0, bytes.length, fds) > 0) this.messages++;
  }

  /**
   * With other flags, in pieces, its descriptors with any of them, or cut short.
   * @returns whether the stream goes on with a message
   */
  #sendBadly({ id, payload, fds }: Message, random: Random): boolean {
    const flags = random.chance(0.98)
      ? random.pick([1, 9, 9, 9, 9, 9, 9, 9])
      : random.pick([0, 2, 3, 5, 13, 0xffff_fff1]);
    const lie = random.chance(0.03);
    const bytes = frame(id, payload, flags, lie ? random.below(5000) : payload.length);
    const cut = random.chance(0.2) ? random.between(1, bytes.length) : bytes.length;
    const late = random.chance(0.2);
    const short = random.chance(0.02);
    const sent = sendmsg(this.#fd, bytes, 0, cut, late && cut < bytes.length ? [] : fds);
    if (sent > 0) this.messages++;
    if (cut < bytes.length && !short) sendmsg(this.#fd, bytes, cut, bytes.length - cut, late ? fds : []);
    return sent === cut && !lie && !(short && cut < bytes.length);
  }

  /** Lets the backend work, and reads what it says. */
  async #settle(turns: number): Promise<void> {
    const buffer = new Uint8Array(16384);
    const fds: number[] = [];
    for (let i = 0; i < turns; i++) {
      await nextTurn();
      for (let got = 1; got > 0; ) {
        got = recvmsg(this.#fd, buffer, 0, buffer.length, fds);
        for (const fd of fds) closeFd(fd);
        if (got > 0) this.#replies = Buffer.concat([this.#replies, buffer.subarray(0, got)]);
      }
      while (this.#replies.length >= 12) {
        const [flags, size] = [this.#replies.readUInt32LE(4), this.#replies.readUInt32LE(8)];
        assert.equal(flags, 5, "a reply's flags");
        assert.ok(size <= 268, `a reply of ${size} bytes`);
        if (this.#replies.length < 12 + size) break;
        this.#replies = this.#replies.subarray(12 + size);
      }
    }
  }
}

type Ring = (typeof RINGS)[number];

function addressPayload(index: number): Uint8Array {
  const { descriptors, available, used } = RINGS[index] as Ring;
  const payload = Buffer.alloc(40);
  payload.writeUInt32LE(index, 0);
  payload.writeBigUInt64LE(BigInt(USER_BASE + descriptors), 8);
  payload.writeBigUInt64LE(BigInt(USER_BASE + used), 16);
  payload.writeBigUInt64LE(BigInt(USER_BASE + available), 24);
  payload.writeBigUInt64LE(BigInt(GUEST_BASE + used), 32);
  return payload;
}

function inflight(size: number): Uint8Array {
  return inflightPayload({ size, offset: 0, queues: 2, entries: QUEUE_SIZE });
}
