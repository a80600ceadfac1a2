import { FrontendError, SystemError } from "../errors.ts";
import { errnoName } from "../posix/errno.ts";
import { createEventfd, drainEventfd, signalEventfd } from "../posix/eventfd.ts";
import type { Poller } from "../posix/poller.ts";
import { closeFd } from "../posix/unix-socket.ts";
import type { RingAddresses } from "../virtqueue/layout.ts";
import type { VhostUserMessage } from "./connection.ts";
import { VhostUserConnection } from "./connection.ts";
import type { InflightMessage, RegionMessage } from "./messages.ts";
import {
  bits,
  feature,
  hasBit,
  INFLIGHT_SIZE,
  inflightPayload,
  NEED_REPLY,
  protocolFeature,
  REGION_SIZE,
  REPLY,
  readInflight,
  request,
  requestName,
  statePayload,
  u64Payload,
  VRING_LOG,
  writeRegion,
} from "./messages.ts";

export interface FrontendVring {
  size: number;
  addresses: RingAddresses;
}

export interface FrontendSetup {
  /** Device feature bits that the driver wants; those that the backend lacks are left out. */
  features: bigint;
  /** Memory, with a descriptor for each region, which stays the caller's. */
  memory: readonly (RegionMessage & { fd: number })[];
  vrings: readonly FrontendVring[];
}

/** The file in which the chains in flight are marked; the descriptor is the caller's. */
export type InflightFile = InflightMessage & { readonly fd: number };

/** The log of a migration; the descriptors are the caller's. */
export interface LogFile {
  readonly fd: number;
  /** Bytes into the file, and of the log: a bit for each page of guest memory from address 0 on. */
  readonly offset: number;
  readonly size: number;
  /** An eventfd that is written when something was logged. */
  readonly notify?: number;
}

export interface FrontendEvents {
  /** The device used buffers of this queue. */
  onCall(queue: number): void;
  onClose(error: Error | undefined): void;
}

/** An answer; its descriptor is whoever's who gets it. */
interface FrontendReply {
  payload: DataView;
  fd: number | undefined;
}

const WANTED_PROTOCOL_FEATURES = bits(
  protocolFeature.MQ,
  protocolFeature.LOG_SHMFD,
  protocolFeature.REPLY_ACK,
  protocolFeature.CONFIG,
  protocolFeature.INFLIGHT_SHMFD,
  protocolFeature.RESET_DEVICE,
);

/**
 * The frontend of a vhost-user connection: what a virtual machine monitor does for its guest. The emulated guest
 * attaches with it from a process of its own. Its order of messages is that of QEMU.
 */
export class VhostUserFrontend {
  readonly #connection: VhostUserConnection;
  readonly #poller: Poller;
  readonly #events: FrontendEvents;
  #setup: FrontendSetup;
  #waiting:
    | { id: number; resolve: (reply: FrontendReply) => void; reject: (error: Error) => void }
    | undefined;
  #protocolFeatures = 0n;
  /** Feature bits of the backend. */
  #offered = 0n;
  #features = 0n;
  #logging = false;
  readonly #kicks: number[] = [];
  readonly #calls: number[] = [];
  #closed = false;

  /** Takes the descriptor of a connected socket. */
  constructor(fd: number, poller: Poller, setup: FrontendSetup, events: FrontendEvents) {
    this.#poller = poller;
    this.#setup = setup;
    this.#events = events;
    this.#connection = new VhostUserConnection(fd, poller, {
      onMessage: (message) => this.#receive(message),
      onClose: (error) => this.#close(error),
    });
  }

  /** The connection is over. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Feature bits that both sides have. */
  get features(): bigint {
    return this.#features;
  }

  /**
   * Asks what the backend can do and agrees on the features: what comes before the driver lays out its rings.
   * @throws FrontendError, SystemError: the connection has ended
   */
  async negotiate(): Promise<void> {
    const offered = (await this.#ask(request.GET_FEATURES)).getBigUint64(0, true);
    if (hasBit(offered, feature.PROTOCOL_FEATURES)) {
      const protocol = (await this.#ask(request.GET_PROTOCOL_FEATURES)).getBigUint64(0, true);
      this.#protocolFeatures = protocol & WANTED_PROTOCOL_FEATURES;
      await this.#tell(request.SET_PROTOCOL_FEATURES, u64Payload(this.#protocolFeatures));
    }
    await this.#tell(request.SET_OWNER, new Uint8Array());
    this.#offered = offered;
    this.change(this.#setup);
  }

  /** Other features, memory and rings, for a device that does not run: those of the next start. */
  change(setup: FrontendSetup): void {
    this.#setup = setup;
    this.#features = this.#offered & (setup.features | bits(feature.PROTOCOL_FEATURES));
    // A kick for the rings of before is none for these.
    for (const kick of this.#kicks) drainEventfd(kick);
  }

  /**
   * Has the chains in flight marked in a file, so that a backend that dies is followed by one that knows them. Between
   * `negotiate` and `start`.
   * @param kept the file that a backend before has used
   * @returns the file to keep; undefined where the backend cannot do it
   */
  async trackInflight(kept?: InflightFile): Promise<InflightFile | undefined> {
    if (!hasBit(this.#protocolFeatures, protocolFeature.INFLIGHT_SHMFD)) return undefined;
    const file = kept ?? (await this.#makeInflight());
    await this.#tell(request.SET_INFLIGHT_FD, inflightPayload(file), [file.fd]);
    return file;
  }

  /**
   * Has every write to guest memory logged, as a monitor does when a migration begins; the device goes on meanwhile.
   * @throws FrontendError: the backend cannot do it
   */
  async startLog({ fd, offset, size, notify }: LogFile): Promise<void> {
    const able =
      hasBit(this.#protocolFeatures, protocolFeature.LOG_SHMFD) && hasBit(this.#offered, feature.LOG_ALL);
    if (!able) throw new FrontendError("feature-not-offered", "the backend cannot log");
    const log = Buffer.concat([u64Payload(BigInt(size)), u64Payload(BigInt(offset))]);
    if (notify !== undefined) await this.#tell(request.SET_LOG_FD, new Uint8Array(), [notify]);
    const flags = hasBit(this.#protocolFeatures, protocolFeature.REPLY_ACK) ? NEED_REPLY : 0;
    const reply = await this.#ask(request.SET_LOG_BASE, log, flags, [fd]);
    if (reply.getBigUint64(0, true) !== 0n)
      throw new FrontendError("reply-unexpected", "the backend refuses SET_LOG_BASE");
    await this.#setLogging(true);
  }

  async stopLog(): Promise<void> {
    await this.#setLogging(false);
  }

  /**
   * Passes memory and rings and starts the device.
   * @param bases where the queues stood, for a guest that had only been paused
   */
  async start(bases: readonly number[] = []): Promise<void> {
    await this.#tellFeatures();
    const { memory, vrings } = this.#setup;
    const table = new DataView(new ArrayBuffer(8 + memory.length * REGION_SIZE));
    table.setUint32(0, memory.length, true);
    for (const [i, region] of memory.entries()) writeRegion(table, 8 + i * REGION_SIZE, region);
    const fds = memory.map((region) => region.fd);
    await this.#tell(request.SET_MEM_TABLE, new Uint8Array(table.buffer), fds);
    for (const [i, vring] of vrings.entries()) {
      await this.#tell(request.SET_VRING_NUM, statePayload(i, vring.size));
      await this.#tell(request.SET_VRING_BASE, statePayload(i, bases[i] ?? 0));
      await this.#tellAddresses(i, vring.addresses);
      const kick = this.#descriptor(this.#kicks, i);
      await this.#tell(request.SET_VRING_KICK, u64Payload(BigInt(i)), [kick]);
      const call = this.#descriptor(this.#calls, i, () => this.#events.onCall(i));
      await this.#tell(request.SET_VRING_CALL, u64Payload(BigInt(i)), [call]);
    }
    if (hasBit(this.#features, feature.PROTOCOL_FEATURES)) {
      for (const i of vrings.keys()) await this.#tell(request.SET_VRING_ENABLE, statePayload(i, 1));
    }
  }

  /**
   * Stops the device, as a monitor does for a pause, a reset and a power-off alike.
   * @returns where the queues stand
   */
  async stop(): Promise<number[]> {
    const bases: number[] = [];
    if (hasBit(this.#features, feature.PROTOCOL_FEATURES)) {
      for (const i of this.#setup.vrings.keys())
        await this.#tell(request.SET_VRING_ENABLE, statePayload(i, 0));
    }
    for (const i of this.#setup.vrings.keys()) {
      bases.push((await this.#ask(request.GET_VRING_BASE, statePayload(i, 0))).getUint32(4, true));
    }
    return bases;
  }

  /**
   * Resets the device (RESET_DEVICE).
   * @throws FrontendError the backend cannot
   */
  async reset(): Promise<void> {
    await this.#tell(request.RESET_DEVICE, new Uint8Array());
  }

  /** Kicks the device. */
  kick(queue: number): void {
    const fd = this.#kicks[queue];
    if (fd !== undefined && !this.#closed) signalEventfd(fd);
  }

  close(): void {
    this.#connection.close();
  }

  #descriptor(fds: number[], index: number, onSignal?: () => void): number {
    const known = fds[index];
    if (known !== undefined) return known;
    const fd = createEventfd();
    if (fd < 0) throw new SystemError("socket", `cannot make an eventfd: ${errnoName(fd)}`);
    fds[index] = fd;
    if (onSignal !== undefined) this.#poller.add(fd, onSignal);
    return fd;
  }

  async #makeInflight(): Promise<InflightFile> {
    const { vrings } = this.#setup;
    const entries = Math.max(...vrings.map((vring) => vring.size));
    const wanted = inflightPayload({ size: 0, offset: 0, queues: vrings.length, entries });
    const { payload, fd } = await this.#exchange(request.GET_INFLIGHT_FD, wanted, 0, []);
    if (fd === undefined || payload.byteLength < INFLIGHT_SIZE) {
      if (fd !== undefined) closeFd(fd);
      throw new FrontendError("descriptor-count", "the backend gave no in-flight buffer");
    }
    return { ...readInflight(payload), fd };
  }

  async #setLogging(logging: boolean): Promise<void> {
    this.#logging = logging;
    await this.#tellFeatures();
    for (const [i, vring] of this.#setup.vrings.entries()) await this.#tellAddresses(i, vring.addresses);
  }

  async #tellFeatures(): Promise<void> {
    const logging = this.#logging ? bits(feature.LOG_ALL) : 0n;
    await this.#tell(request.SET_FEATURES, u64Payload(this.#features | logging));
  }

  async #tellAddresses(index: number, addresses: RingAddresses): Promise<void> {
    const payload = new DataView(new ArrayBuffer(40));
    payload.setUint32(0, index, true);
    payload.setUint32(4, this.#logging ? VRING_LOG : 0, true);
    payload.setBigUint64(8, BigInt(addresses.descriptors), true);
    payload.setBigUint64(16, BigInt(addresses.used), true);
    payload.setBigUint64(24, BigInt(addresses.available), true);
    // The used ring is logged by its guest address.
    const { used } = addresses;
    const region = this.#setup.memory.find(
      ({ userAddress, size }) => used >= userAddress && used < userAddress + size,
    );
    if (region !== undefined)
      payload.setBigUint64(32, BigInt(used - region.userAddress + region.guestAddress), true);
    await this.#tell(request.SET_VRING_ADDR, new Uint8Array(payload.buffer));
  }

  /** Sends a request that has an answer of its own. */
  async #ask(
    id: number,
    payload: Uint8Array = new Uint8Array(),
    flags = 0,
    fds: readonly number[] = [],
  ): Promise<DataView> {
    const reply = await this.#exchange(id, payload, flags, fds);
    if (reply.fd !== undefined) closeFd(reply.fd);
    return reply.payload;
  }

  #exchange(id: number, payload: Uint8Array, flags: number, fds: readonly number[]): Promise<FrontendReply> {
    if (this.#closed) return Promise.reject(new SystemError("socket", "the connection is closed"));
    return new Promise((resolve, reject) => {
      this.#waiting = { id, resolve, reject };
      this.#connection.send(id, flags, payload, fds);
    });
  }

  /** Sends a request without an answer, and waits for its acknowledgement where that was agreed. */
  async #tell(id: number, payload: Uint8Array, fds: readonly number[] = []): Promise<void> {
    if (!hasBit(this.#protocolFeatures, protocolFeature.REPLY_ACK) || id === request.SET_PROTOCOL_FEATURES) {
      this.#connection.send(id, 0, payload, fds);
      return;
    }
    const reply = await this.#ask(id, payload, NEED_REPLY, fds);
    if (reply.getBigUint64(0, true) !== 0n) {
      throw new FrontendError("reply-unexpected", `the backend refuses ${requestName(id)}`);
    }
  }

  #receive(message: VhostUserMessage): void {
    const waiting = this.#waiting;
    if (waiting === undefined || waiting.id !== message.id || (message.flags & REPLY) === 0) {
      throw new FrontendError("reply-unexpected", `unexpected ${requestName(message.id)} of the backend`);
    }
    if (message.payload.byteLength < 8)
      throw new FrontendError("message-size", `short reply to ${requestName(message.id)}`);
    this.#waiting = undefined;
    // The connection uses its buffer again.
    const { buffer, byteOffset, byteLength } = message.payload;
    const payload = new DataView(buffer.slice(byteOffset, byteOffset + byteLength));
    waiting.resolve({ payload, fd: message.takeFd() });
  }

  #close(error: Error | undefined): void {
    this.#closed = true;
    this.#waiting?.reject(error ?? new SystemError("socket", "the backend closed the connection"));
    this.#waiting = undefined;
    for (const fd of this.#calls) this.#poller.remove(fd);
    for (const fd of [...this.#kicks.splice(0), ...this.#calls.splice(0)]) closeFd(fd);
    this.#events.onClose(error);
  }
}
