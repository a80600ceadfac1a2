import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, beforeEach, expect } from "vitest";
import type { DeviceEvents } from "../../../rpmsg/device.ts";
import { RpmsgDevice } from "../../../rpmsg/device.ts";
import type { MappedRegion } from "../../../rpmsg/memory/mapped-memory.ts";
import { mappedRegion } from "../../../rpmsg/memory/mapped-memory.ts";
import { createEventfd, signalEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { createMemory } from "../../../rpmsg/posix/shared-memory.ts";
import { closeFd, duplicateFd, recvmsg, sendmsg, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import type { BackendOptions, BackendSnapshot } from "../../../rpmsg/vhost-user/backend.ts";
import { VhostUserBackend } from "../../../rpmsg/vhost-user/backend.ts";
import { request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { mapDescriptors } from "../../../rpmsg/vhost-user/snapshot-descriptors.ts";
import { descriptorCount } from "../posix/support.ts";
import type { DriverOptions } from "./device-driver.ts";
import { DriverRings } from "./device-driver.ts";
import { fdPayload, frame, table } from "./vhost-user-frames.ts";

export const GUEST_BASE = 0x4000_0000;
/** Where the frontend has the guest's memory: not its guest-physical address, so that a mix-up shows. */
export const USER_BASE = 0x7f12_3400_0000;
export const MEMORY_SIZE = 1024 * 1024;

const NEED_REPLY = 8;

/** A guest's memory in a memfd, with rings that are set up by hand. */
export class SharedGuest extends DriverRings {
  readonly region: MappedRegion;

  constructor(options: DriverOptions = {}) {
    const fd = createMemory("vhost-user-test", MEMORY_SIZE);
    const region = mappedRegion(fd, 0, GUEST_BASE, GUEST_BASE, MEMORY_SIZE);
    super(region, options);
    this.region = region;
  }

  get size(): number {
    return this.setup.size;
  }
}

export interface Reply {
  id: number;
  flags: number;
  payload: Buffer;
}

export interface SessionOptions {
  backend?: BackendOptions;
  events?: DeviceEvents;
  guest?: DriverOptions;
  device?: RpmsgDevice;
}

/** A backend with a device, and a frontend of bytes at the other end of a socket pair. */
export class Session {
  device: RpmsgDevice;
  backend: VhostUserBackend;
  readonly guest: SharedGuest;
  readonly fd: number;
  /** Codes of the refused requests. */
  readonly refused: string[] = [];
  /** Settled when the backend's side is over. */
  readonly closed: Promise<Error | undefined>;
  isClosed = false;
  /** How often it was told that memory can be truncated. */
  unsealed = 0;
  readonly #poller: Poller;
  readonly #options: SessionOptions;
  #settle: (error: Error | undefined) => void = () => {};
  readonly #own = new Set<number>();
  readonly #replies: Reply[] = [];
  #received = Buffer.alloc(0);
  #waiting: (() => void) | undefined;

  constructor(poller: Poller, options: SessionOptions = {}) {
    this.#poller = poller;
    this.#options = options;
    this.device = options.device ?? new RpmsgDevice(options.events);
    this.guest = new SharedGuest(options.guest);
    const [ours, theirs] = socketPair();
    this.fd = ours;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.backend = this.#serve(theirs);
    poller.add(ours, () => this.#read());
  }

  #serve(from: number | BackendSnapshot): VhostUserBackend {
    const backend: VhostUserBackend = new VhostUserBackend(
      from,
      this.#poller,
      this.device,
      {
        onRefused: (error) => this.refused.push(error.code),
        onUnsealed: () => this.unsealed++,
        onClose: (error) => {
          if (this.backend !== backend) return;
          this.isClosed = true;
          this.#settle(error);
        },
      },
      this.#options.backend,
    );
    return backend;
  }

  /**
   * Another backend and another device go on with what these know and with copies of their descriptors, as in another
   * process.
   * @param prepare gives the new device its endpoints
   */
  handOver(prepare: (device: RpmsgDevice) => void = () => {}): void {
    const { backend, device } = this;
    backend.pause();
    device.pause();
    const state = structuredClone({ backend: backend.snapshot(), device: device.snapshot() });
    this.device = new RpmsgDevice(this.#options.events);
    prepare(this.device);
    this.device.restore(state.device);
    this.backend = this.#serve(mapDescriptors(state.backend, duplicateFd));
    backend.close();
    this.backend.resume();
  }

  /**
   * Another process tries to go on with copies of the descriptors, and cannot; the backend goes on itself.
   * @param spoil makes of the state one that cannot be gone on with
   * @returns what that one throws
   */
  failToHandOver(spoil: (state: BackendSnapshot) => BackendSnapshot): unknown {
    const { backend, device } = this;
    backend.pause();
    device.pause();
    const state = mapDescriptors(spoil(structuredClone(backend.snapshot())), duplicateFd);
    const other = new RpmsgDevice();
    let thrown: unknown;
    try {
      new VhostUserBackend(state, this.#poller, other, { onClose() {} }).close();
    } catch (error) {
      thrown = error;
    }
    other.close();
    device.resume();
    backend.resume();
    return thrown;
  }

  /** A new eventfd that lives as long as the session. */
  eventfd(): number {
    return this.own(createEventfd());
  }

  own(fd: number): number {
    expect(fd).toBeGreaterThanOrEqual(0);
    this.#own.add(fd);
    return fd;
  }

  /** Closes a descriptor of ours before the end of the session. */
  drop(fd: number): void {
    if (this.#own.delete(fd)) closeFd(fd);
  }

  sendBytes(bytes: Uint8Array, fds: readonly number[] = []): void {
    expect(sendmsg(this.fd, bytes, 0, bytes.length, fds)).toBe(bytes.length);
  }

  send(id: number, payload: Uint8Array = new Uint8Array(), fds: readonly number[] = [], flags = 1): void {
    this.sendBytes(frame(id, payload, flags), fds);
  }

  async reply(): Promise<Reply> {
    while (this.#replies.length === 0) {
      if (this.isClosed)
        throw new Error("the backend has closed the connection", { cause: await this.closed });
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    return this.#replies.shift() as Reply;
  }

  get repliesLeft(): number {
    return this.#replies.length;
  }

  /** Sends a request with a reply of its own. */
  async ask(
    id: number,
    payload: Uint8Array = new Uint8Array(),
    fds: readonly number[] = [],
  ): Promise<Buffer> {
    this.send(id, payload, fds);
    const reply = await this.reply();
    expect([reply.id, reply.flags]).toEqual([id, 5]);
    return reply.payload;
  }

  /** Sends a request with NEED_REPLY. */
  async tell(
    id: number,
    payload: Uint8Array = new Uint8Array(),
    fds: readonly number[] = [],
  ): Promise<number> {
    this.send(id, payload, fds, 1 | NEED_REPLY);
    const reply = await this.reply();
    expect([reply.id, reply.flags, reply.payload.length]).toEqual([id, 5, 8]);
    return Number(reply.payload.readBigUInt64LE());
  }

  /** Waits until all that was sent has been handled. */
  async barrier(): Promise<bigint> {
    return (await this.ask(request.GET_FEATURES)).readBigUInt64LE();
  }

  async features(protocol = 0x1_8000 | 0x322b, device = 0x1_7000_0001n): Promise<void> {
    await this.barrier();
    this.send(request.SET_PROTOCOL_FEATURES, u64Payload(BigInt(protocol)));
    this.send(request.SET_OWNER);
    this.send(request.SET_FEATURES, u64Payload(device));
    await this.barrier();
  }

  memoryTable(): [payload: Uint8Array, fds: number[]] {
    return [
      table([{ guest: GUEST_BASE, size: MEMORY_SIZE, user: USER_BASE, offset: 0 }]),
      [this.guest.region.fd],
    ];
  }

  addresses(queue: 0 | 1): Uint8Array {
    const ring = this.guest.rings[queue];
    const user = (address: number) => BigInt(address - GUEST_BASE + USER_BASE);
    const payload = Buffer.alloc(40);
    payload.writeUInt32LE(queue, 0);
    payload.writeBigUInt64LE(user(ring.descriptors), 8);
    payload.writeBigUInt64LE(user(ring.used), 16);
    payload.writeBigUInt64LE(user(ring.available), 24);
    return payload;
  }

  /** Memory and both rings up to ENABLE, each request acknowledged. */
  async start(bases: readonly number[] = [0, 0]): Promise<{ kicks: number[]; calls: number[] }> {
    expect(await this.tell(request.SET_MEM_TABLE, ...this.memoryTable())).toBe(0);
    const kicks: number[] = [];
    const calls: number[] = [];
    for (const queue of [0, 1] as const) {
      kicks.push(this.eventfd());
      calls.push(this.eventfd());
      expect(await this.tell(request.SET_VRING_NUM, statePayload(queue, this.guest.size))).toBe(0);
      expect(await this.tell(request.SET_VRING_BASE, statePayload(queue, bases[queue] ?? 0))).toBe(0);
      expect(await this.tell(request.SET_VRING_ADDR, this.addresses(queue))).toBe(0);
      expect(await this.tell(request.SET_VRING_KICK, fdPayload(queue), kicks.slice(queue))).toBe(0);
      expect(await this.tell(request.SET_VRING_CALL, fdPayload(queue), calls.slice(queue))).toBe(0);
    }
    for (const queue of [0, 1])
      expect(await this.tell(request.SET_VRING_ENABLE, statePayload(queue, 1))).toBe(0);
    return { kicks, calls };
  }

  async stop(): Promise<number[]> {
    const bases: number[] = [];
    for (const queue of [0, 1])
      expect(await this.tell(request.SET_VRING_ENABLE, statePayload(queue, 0))).toBe(0);
    for (const queue of [0, 1])
      bases.push((await this.ask(request.GET_VRING_BASE, statePayload(queue, 0))).readUInt32LE(4));
    return bases;
  }

  kick(fd: number | undefined): void {
    expect(signalEventfd(fd ?? -1)).toBe(0);
  }

  /** Leaves what the backend sends in the socket from now on. */
  stopReading(): void {
    this.#poller.remove(this.fd);
  }

  readAgain(): void {
    expect(this.#poller.add(this.fd, () => this.#read())).toBe(0);
  }

  /** Ends the frontend's side: what a crash does. */
  disconnect(): void {
    if (this.#own.has(this.fd)) return;
    this.#own.add(this.fd);
    this.#poller.remove(this.fd);
    closeFd(this.fd);
  }

  dispose(): void {
    this.disconnect();
    this.#own.delete(this.fd);
    this.backend.close();
    for (const fd of this.#own) closeFd(fd);
    this.#own.clear();
    this.guest.memory.close();
  }

  #read(): void {
    const buffer = new Uint8Array(65536);
    const fds: number[] = [];
    for (;;) {
      const got = recvmsg(this.fd, buffer, 0, buffer.length, fds);
      for (const fd of fds) closeFd(fd);
      if (got <= 0) break;
      this.#received = Buffer.concat([this.#received, buffer.subarray(0, got)]);
    }
    while (this.#received.length >= 12) {
      const size = this.#received.readUInt32LE(8);
      if (this.#received.length < 12 + size) break;
      this.#replies.push({
        id: this.#received.readUInt32LE(0),
        flags: this.#received.readUInt32LE(4),
        payload: this.#received.subarray(12, 12 + size),
      });
      this.#received = this.#received.subarray(12 + size);
    }
    this.#waiting?.();
  }
}

/** Opens sessions that are gone after each test, and asserts that no descriptor is left of them. */
export function useSessions(): (options?: SessionOptions) => Session {
  let poller: Poller;
  let sessions: Session[] = [];
  const errors: unknown[] = [];
  let before = 0;
  beforeEach(() => {
    before = descriptorCount();
    poller = new Poller({ onError: (error) => errors.push(error) });
  });
  afterEach(async () => {
    for (const session of sessions) session.dispose();
    sessions = [];
    await nextTurn();
    poller.close();
    expect(errors.splice(0)).toEqual([]);
    expect(descriptorCount()).toBe(before);
  });
  return (options) => {
    const session = new Session(poller, options);
    sessions.push(session);
    return session;
  };
}
