import type { TransportDevice } from "../device.ts";
import { RPMSG_F_BUFSZ, RPMSG_F_NS } from "../device.ts";
import { FrontendError } from "../errors.ts";
import type { Poller } from "../posix/poller.ts";
import { closeFd } from "../posix/unix-socket.ts";
import type { DeviceConfig } from "../wire/device-config.ts";
import { encodeDeviceConfig } from "../wire/device-config.ts";
import type { ConnectionSnapshot, VhostUserMessage } from "./connection.ts";
import { VhostUserConnection } from "./connection.ts";
import type { MemoryTable } from "./memory-table.ts";
import { MAX_MEMORY_SLOTS, MAX_TABLE_REGIONS } from "./memory-table.ts";
import {
  bits,
  feature,
  hasBit,
  INFLIGHT_PADDED_SIZE,
  INFLIGHT_SIZE,
  NEED_REPLY,
  protocolFeature,
  REGION_SIZE,
  REPLY,
  request,
  requestName,
  u64Payload,
} from "./messages.ts";
import { mapDescriptors } from "./snapshot-descriptors.ts";
import type { VringPairSnapshot } from "./vring-pair.ts";
import { VringPair } from "./vring-pair.ts";

const MAX_CONFIG_SIZE = 256;

const PROTOCOL_FEATURES = bits(
  protocolFeature.MQ,
  protocolFeature.LOG_SHMFD,
  protocolFeature.REPLY_ACK,
  protocolFeature.BACKEND_REQ,
  protocolFeature.CONFIG,
  protocolFeature.INFLIGHT_SHMFD,
  protocolFeature.RESET_DEVICE,
  protocolFeature.CONFIGURE_MEM_SLOTS,
  protocolFeature.STATUS,
);

export interface BackendOptions {
  /** Buffer sizes for the F_BUFSZ dialect of Linux; offered only when given. */
  bufferSizes?: DeviceConfig;
}

export interface BackendEvents {
  /** A request was refused, and the frontend told so. */
  onRefused?(error: FrontendError): void;
  /** Memory came that the frontend can truncate, which would kill this process: once a connection. */
  onUnsealed?(): void;
  /** The connection is over and the device is reset. */
  onClose(error: Error | undefined): void;
}

/** A paused backend, for a hand-over: plain data, with descriptors of the process that gives it. */
export interface BackendSnapshot {
  readonly connection: ConnectionSnapshot;
  readonly protocolFeatures: bigint;
  readonly status: number;
  readonly backendRequestFd: number | undefined;
  readonly vrings: VringPairSnapshot;
}

/** A reply's payload, with a descriptor that stays ours or without. */
type Reply = Uint8Array | { readonly payload: Uint8Array; readonly fd: number };

/** What a request may look like, and what answers it. A handler's result is the reply. */
interface Handler {
  /** Exact size of the payload, or its bounds. */
  size: number | readonly [least: number, most: number];
  /** Most descriptors that may come with it. */
  fds?: number;
  run(message: VhostUserMessage): Reply | undefined;
}

/**
 * The backend of one vhost-user connection: what the frontend says of features, memory and vrings becomes an
 * attached device (QEMU, docs/interop/vhost-user.rst). Any order of messages is taken that the protocol allows.
 *
 * A request that cannot be done is answered with a non-zero value where the frontend asked for an answer; otherwise
 * it could not know, and the connection ends.
 */
export class VhostUserBackend {
  readonly #events: BackendEvents;
  readonly #offered: bigint;
  readonly #config: Uint8Array;
  readonly #connection: VhostUserConnection;
  readonly #vrings: VringPair;
  readonly #handlers: ReadonlyMap<number, Handler>;
  #protocolFeatures = 0n;
  #status = 0;
  #unsealedTold = false;
  #backendRequestFd: number | undefined;

  /**
   * Takes the descriptor of a connected socket; or goes on as the backend of another process, whose descriptors are this
   * process's now, after `resume`.
   * @throws FrontendError, SystemError where the state of another cannot be taken; its descriptors are closed then
   */
  constructor(
    from: number | BackendSnapshot,
    poller: Poller,
    device: TransportDevice,
    events: BackendEvents,
    options: BackendOptions = {},
  ) {
    this.#events = events;
    const offered = [
      RPMSG_F_NS,
      feature.LOG_ALL,
      feature.INDIRECT,
      feature.EVENT_IDX,
      feature.PROTOCOL_FEATURES,
      feature.VERSION_1,
    ];
    if (options.bufferSizes !== undefined) offered.push(RPMSG_F_BUFSZ);
    this.#offered = bits(...offered);
    this.#config =
      options.bufferSizes === undefined ? new Uint8Array() : encodeDeviceConfig(options.bufferSizes);
    this.#vrings = new VringPair(poller, device);
    this.#handlers = this.#makeHandlers();
    const fresh = typeof from === "number";
    if (!fresh) this.#restore(from);
    this.#connection = new VhostUserConnection(fresh ? from : from.connection, poller, {
      onMessage: (message) => this.#receive(message),
      onClose: (error) => this.#closed(error),
    });
  }

  /** Feature bits that the frontend set. */
  get features(): bigint {
    return this.#vrings.features;
  }

  /** Sizes of the two queues, 0 where not set. */
  get queueSizes(): readonly [response: number, request: number] {
    return this.#vrings.sizes;
  }

  close(): void {
    this.#connection.close();
  }

  /** Takes no more of the frontend's messages until `resume`. Where the device is to pause, its owner pauses it. */
  pause(): void {
    this.#connection.pause();
  }

  /** Goes on after `pause`, or where the other backend stood. */
  resume(): void {
    this.#vrings.goOn();
    this.#connection.resume();
  }

  /** What there is to know of a paused backend whose device is paused. */
  snapshot(): BackendSnapshot {
    return {
      connection: this.#connection.snapshot(),
      protocolFeatures: this.#protocolFeatures,
      status: this.#status,
      backendRequestFd: this.#backendRequestFd,
      vrings: this.#vrings.snapshot(),
    };
  }

  /** Where that fails, no descriptor of the snapshot is left open. */
  #restore(snapshot: BackendSnapshot): void {
    const left = new Set<number>();
    mapDescriptors(snapshot, (fd) => {
      left.add(fd);
      return fd;
    });
    try {
      this.#vrings.restore(snapshot.vrings, (fd) => {
        left.delete(fd);
        return fd;
      });
    } catch (error) {
      for (const fd of left) closeFd(fd);
      throw error;
    }
    this.#protocolFeatures = snapshot.protocolFeatures;
    this.#status = snapshot.status;
    this.#backendRequestFd = snapshot.backendRequestFd;
  }

  #receive(message: VhostUserMessage): void {
    const wantsAck =
      (message.flags & NEED_REPLY) !== 0 && hasBit(this.#protocolFeatures, protocolFeature.REPLY_ACK);
    let reply: Reply | undefined;
    try {
      reply = this.#handle(message);
    } catch (error) {
      if (!(error instanceof FrontendError) || !wantsAck) throw error;
      this.#events.onRefused?.(error);
      this.#connection.send(message.id, REPLY, u64Payload(1n));
      return;
    }
    if (reply instanceof Uint8Array) this.#connection.send(message.id, REPLY, reply);
    else if (reply !== undefined) this.#connection.send(message.id, REPLY, reply.payload, [reply.fd]);
    else if (wantsAck) this.#connection.send(message.id, REPLY, u64Payload(0n));
  }

  #changeMemory(change: (memory: MemoryTable) => void): undefined {
    this.#vrings.changeMemory(change);
    this.#tellUnsealed();
  }

  /** Once a connection. */
  #tellUnsealed(): void {
    if (this.#unsealedTold || !this.#vrings.hasUnsealedMemory) return;
    this.#unsealedTold = true;
    this.#events.onUnsealed?.();
  }

  #handle(message: VhostUserMessage): Reply | undefined {
    const name = requestName(message.id);
    if ((message.flags & REPLY) !== 0)
      throw new FrontendError("reply-unexpected", `${name} is marked as a reply`);
    const handler = this.#handlers.get(message.id);
    if (handler === undefined) throw new FrontendError("message-unknown", `${name} is not supported`);
    const size = message.payload.byteLength;
    const [least, most] = typeof handler.size === "number" ? [handler.size, handler.size] : handler.size;
    if (size < least || size > most)
      throw new FrontendError("message-size", `${name} came with ${size} bytes`);
    if (message.fdCount > (handler.fds ?? 0)) {
      throw new FrontendError("descriptor-count", `${name} came with ${message.fdCount} descriptors`);
    }
    return handler.run(message);
  }

  #makeHandlers(): ReadonlyMap<number, Handler> {
    const vrings = this.#vrings;
    const none = 0;
    const u64 = 8;
    const state = 8;
    /** GET requests may come with a payload that nobody reads. */
    const any = [0, 8] as const;
    const inflight = [INFLIGHT_SIZE, INFLIGHT_PADDED_SIZE] as const;
    const handlers: [number, Handler][] = [
      [request.GET_FEATURES, { size: any, run: () => u64Payload(this.#offered) }],
      [
        request.SET_FEATURES,
        { size: u64, run: ({ payload }) => this.#setFeatures(payload.getBigUint64(0, true)) },
      ],
      [request.SET_OWNER, { size: any, run: () => undefined }],
      [request.RESET_OWNER, { size: any, run: () => vrings.enableAll(false) }],
      [request.GET_PROTOCOL_FEATURES, { size: any, run: () => u64Payload(PROTOCOL_FEATURES) }],
      [
        request.SET_PROTOCOL_FEATURES,
        { size: u64, run: ({ payload }) => this.#setProtocolFeatures(payload.getBigUint64(0, true)) },
      ],
      [request.GET_QUEUE_NUM, { size: any, run: () => u64Payload(BigInt(vrings.count)) }],
      [
        request.SET_MEM_TABLE,
        // Some senders pad the payload to the size of a larger table.
        {
          size: [8, 8 + MAX_TABLE_REGIONS * REGION_SIZE],
          fds: MAX_TABLE_REGIONS,
          run: (m) => this.#changeMemory((memory) => memory.set(m)),
        },
      ],
      [request.GET_MAX_MEM_SLOTS, { size: any, run: () => u64Payload(BigInt(MAX_MEMORY_SLOTS)) }],
      [
        request.ADD_MEM_REG,
        {
          size: 8 + REGION_SIZE,
          fds: 1,
          run: (m) => this.#changeMemory((memory) => memory.add(m)),
        },
      ],
      [
        request.REM_MEM_REG,
        {
          size: 8 + REGION_SIZE,
          fds: 1,
          run: (m) => vrings.changeMemory((memory) => memory.remove(m)),
        },
      ],
      [
        request.SET_LOG_BASE,
        {
          size: 16,
          fds: 1,
          run: (message) => {
            this.#needs(protocolFeature.LOG_SHMFD, message);
            vrings.setLogBase(message);
            this.#tellUnsealed();
            return u64Payload(0n);
          },
        },
      ],
      [request.SET_LOG_FD, { size: any, fds: 1, run: (message) => vrings.setLogFd(message) }],
      [
        request.GET_INFLIGHT_FD,
        {
          size: inflight,
          run: (message) => {
            this.#needs(protocolFeature.INFLIGHT_SHMFD, message);
            return vrings.getInflight(message);
          },
        },
      ],
      [
        request.SET_INFLIGHT_FD,
        {
          size: inflight,
          fds: 1,
          run: (message) => {
            this.#needs(protocolFeature.INFLIGHT_SHMFD, message);
            vrings.setInflight(message);
            this.#tellUnsealed();
            return undefined;
          },
        },
      ],
      [request.SET_VRING_NUM, { size: state, run: ({ payload }) => vrings.setSize(payload) }],
      [request.SET_VRING_ADDR, { size: 40, run: ({ payload }) => vrings.setAddresses(payload) }],
      [request.SET_VRING_BASE, { size: state, run: ({ payload }) => vrings.setBase(payload) }],
      [request.GET_VRING_BASE, { size: state, run: ({ payload }) => vrings.getBase(payload) }],
      [request.SET_VRING_KICK, { size: u64, fds: 1, run: (message) => vrings.setKick(message) }],
      [request.SET_VRING_CALL, { size: u64, fds: 1, run: (message) => vrings.setCall(message) }],
      [request.SET_VRING_ERR, { size: u64, fds: 1, run: (message) => vrings.setError(message) }],
      [request.SET_VRING_ENABLE, { size: state, run: ({ payload }) => vrings.setEnable(payload) }],
      [
        request.SET_BACKEND_REQ_FD,
        { size: any, fds: 1, run: (message) => this.#setBackendRequestFd(message) },
      ],
      [
        request.GET_CONFIG,
        { size: [12, 12 + MAX_CONFIG_SIZE], run: ({ payload }) => this.#getConfig(payload) },
      ],
      [
        request.SET_CONFIG,
        {
          size: [12, 12 + MAX_CONFIG_SIZE],
          run: () => {
            throw new FrontendError("config-range", "the configuration space is read-only");
          },
        },
      ],
      [request.RESET_DEVICE, { size: none, run: () => this.#resetDevice() }],
      [
        request.SET_STATUS,
        { size: u64, run: ({ payload }) => this.#setStatus(Number(payload.getBigUint64(0, true))) },
      ],
      [request.GET_STATUS, { size: any, run: () => u64Payload(BigInt(this.#status)) }],
    ];
    return new Map(handlers);
  }

  #setFeatures(features: bigint): undefined {
    if ((features & ~this.#offered) !== 0n) {
      throw new FrontendError("feature-not-offered", `SET_FEATURES has 0x${features.toString(16)}`);
    }
    this.#vrings.setFeatures(features);
  }

  #setProtocolFeatures(features: bigint): undefined {
    if ((features & ~PROTOCOL_FEATURES) !== 0n) {
      throw new FrontendError("feature-not-offered", `SET_PROTOCOL_FEATURES has 0x${features.toString(16)}`);
    }
    this.#protocolFeatures = features;
  }

  #needs(bit: number, { id }: VhostUserMessage): void {
    if (hasBit(this.#protocolFeatures, bit)) return;
    throw new FrontendError("feature-not-offered", `${requestName(id)} needs protocol feature ${bit}`);
  }

  #setStatus(status: number): undefined {
    this.#status = status & 0xff;
    if (status !== 0) return;
    // Frontends send it for a pause too (QEMU: vhost_reset_status): the restart tells which it was.
    this.#vrings.stopAll();
  }

  #getConfig(payload: DataView): Uint8Array {
    const offset = payload.getUint32(0, true);
    const size = payload.getUint32(4, true);
    // An answer without bytes is how a backend says no.
    const known = size <= MAX_CONFIG_SIZE && offset + size <= this.#config.length;
    const reply = new Uint8Array(12 + (known ? size : 0));
    const header = new DataView(reply.buffer);
    header.setUint32(0, offset, true);
    header.setUint32(4, known ? size : 0, true);
    header.setUint32(8, payload.getUint32(8, true), true);
    if (known) reply.set(this.#config.subarray(offset, offset + size), 12);
    return reply;
  }

  #setBackendRequestFd(message: VhostUserMessage): undefined {
    const fd = message.takeFd();
    if (fd === undefined)
      throw new FrontendError("descriptor-count", "SET_BACKEND_REQ_FD came without a descriptor");
    if (this.#backendRequestFd !== undefined) closeFd(this.#backendRequestFd);
    this.#backendRequestFd = fd;
  }

  #resetDevice(): undefined {
    this.#status = 0;
    this.#vrings.resetDevice();
  }

  #closed(error: Error | undefined): void {
    this.#vrings.close();
    if (this.#backendRequestFd !== undefined) closeFd(this.#backendRequestFd);
    this.#backendRequestFd = undefined;
    this.#events.onClose(error);
  }
}
