import { FrontendError, SystemError } from "../errors.ts";
import { errnoName } from "../posix/errno.ts";
import { createEventfd, drainEventfd, signalEventfd } from "../posix/eventfd.ts";
import type { Poller } from "../posix/poller.ts";
import { closeFd } from "../posix/unix-socket.ts";
import type { RingAddresses } from "../virtqueue/layout.ts";
import type { VhostUserMessage } from "./connection.ts";
import { VhostUserConnection } from "./connection.ts";
import type { RegionMessage } from "./messages.ts";
import {
  bits,
  feature,
  hasBit,
  NEED_REPLY,
  protocolFeature,
  REGION_SIZE,
  REPLY,
  request,
  requestName,
  statePayload,
  u64Payload,
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

export interface FrontendEvents {
  /** The device used buffers of this queue. */
  onCall(queue: number): void;
  onClose(error: Error | undefined): void;
}

const WANTED_PROTOCOL_FEATURES = bits(
  protocolFeature.MQ,
  protocolFeature.REPLY_ACK,
  protocolFeature.CONFIG,
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
  #waiting: { id: number; resolve: (payload: DataView) => void; reject: (error: Error) => void } | undefined;
  #protocolFeatures = 0n;
  #offered = 0n;
  #features = 0n;
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
   * Passes memory and rings and starts the device.
   * @param bases where the queues stood, for a guest that had only been paused
   */
  async start(bases: readonly number[] = []): Promise<void> {
    await this.#tell(request.SET_FEATURES, u64Payload(this.#features));
    const { memory, vrings } = this.#setup;
    const table = new DataView(new ArrayBuffer(8 + memory.length * REGION_SIZE));
    table.setUint32(0, memory.length, true);
    for (const [i, region] of memory.entries()) writeRegion(table, 8 + i * REGION_SIZE, region);
    const fds = memory.map((region) => region.fd);
    await this.#tell(request.SET_MEM_TABLE, new Uint8Array(table.buffer), fds);
    for (const [i, vring] of vrings.entries()) {
      await this.#tell(request.SET_VRING_NUM, statePayload(i, vring.size));
      await this.#tell(request.SET_VRING_BASE, statePayload(i, bases[i] ?? 0));
      await this.#tell(request.SET_VRING_ADDR, addressPayload(i, vring.addresses));
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

  /** Sends a request that has an answer of its own. */
  #ask(
    id: number,
    payload: Uint8Array = new Uint8Array(),
    flags = 0,
    fds: readonly number[] = [],
  ): Promise<DataView> {
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
    waiting.resolve(new DataView(buffer.slice(byteOffset, byteOffset + byteLength)));
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

function addressPayload(index: number, addresses: RingAddresses): Uint8Array {
  const payload = new DataView(new ArrayBuffer(40));
  payload.setUint32(0, index, true);
  payload.setBigUint64(8, BigInt(addresses.descriptors), true);
  payload.setBigUint64(16, BigInt(addresses.used), true);
  payload.setBigUint64(24, BigInt(addresses.available), true);
  return new Uint8Array(payload.buffer);
}
