import type { RpmsgDevice } from "../device.ts";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RPMSG_F_BUFSZ, RPMSG_F_NS } from "../device.ts";
import { FrontendError } from "../errors.ts";
import { errnoName } from "../posix/errno.ts";
import type { Poller } from "../posix/poller.ts";
import { closeFd } from "../posix/unix-socket.ts";
import { isQueueSize } from "../virtqueue/layout.ts";
import type { DeviceConfig } from "../wire/device-config.ts";
import { encodeDeviceConfig } from "../wire/device-config.ts";
import type { VhostUserMessage } from "./connection.ts";
import { VhostUserConnection } from "./connection.ts";
import { MAX_MEMORY_SLOTS, MAX_TABLE_REGIONS, MemoryTable } from "./memory-table.ts";
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
  VRING_LOG,
  VRING_NO_FD,
} from "./messages.ts";
import { Vring } from "./vring.ts";

const MAX_CONFIG_SIZE = 256;

const PROTOCOL_FEATURES = bits(
  protocolFeature.MQ,
  protocolFeature.REPLY_ACK,
  protocolFeature.BACKEND_REQ,
  protocolFeature.CONFIG,
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
  /** The connection is over and the device is reset. */
  onClose(error: Error | undefined): void;
}

/** What a request may look like, and what answers it. A handler's result is the reply's payload. */
interface Handler {
  /** Exact size of the payload, or its bounds. */
  size: number | readonly [least: number, most: number];
  /** Most descriptors that may come with it. */
  fds?: number;
  run(message: VhostUserMessage): Uint8Array | undefined;
}

/**
 * The backend of one vhost-user connection: what the frontend says of features, memory and vrings becomes an
 * attached device (QEMU, docs/interop/vhost-user.rst). Any order of messages is taken that the protocol allows.
 *
 * A request that cannot be done is answered with a non-zero value where the frontend asked for an answer; otherwise
 * it could not know, and the connection ends.
 */
export class VhostUserBackend {
  readonly #device: RpmsgDevice;
  readonly #events: BackendEvents;
  readonly #offered: bigint;
  readonly #config: Uint8Array;
  readonly #connection: VhostUserConnection;
  readonly #memory = new MemoryTable();
  readonly #vrings: readonly [response: Vring, request: Vring];
  readonly #handlers: ReadonlyMap<number, Handler>;
  #features = 0n;
  #protocolFeatures = 0n;
  #status = 0;
  #running = false;
  /** The device was stopped by a change of memory that took its rings away. */
  #lacksMemory = false;
  #backendRequestFd: number | undefined;

  /** Takes the descriptor of a connected socket. */
  constructor(
    fd: number,
    poller: Poller,
    device: RpmsgDevice,
    events: BackendEvents,
    options: BackendOptions = {},
  ) {
    this.#device = device;
    this.#events = events;
    const offered = [
      RPMSG_F_NS,
      feature.INDIRECT,
      feature.EVENT_IDX,
      feature.PROTOCOL_FEATURES,
      feature.VERSION_1,
    ];
    if (options.bufferSizes !== undefined) offered.push(RPMSG_F_BUFSZ);
    this.#offered = bits(...offered);
    this.#config =
      options.bufferSizes === undefined ? new Uint8Array() : encodeDeviceConfig(options.bufferSizes);
    this.#vrings = [
      new Vring(poller, () => this.#kicked(RESPONSE_QUEUE)),
      new Vring(poller, () => this.#kicked(REQUEST_QUEUE)),
    ];
    this.#handlers = this.#makeHandlers();
    this.#connection = new VhostUserConnection(fd, poller, {
      onMessage: (message) => this.#receive(message),
      onClose: (error) => this.#closed(error),
    });
  }

  /** Feature bits that the frontend set. */
  get features(): bigint {
    return this.#features;
  }

  /** Sizes of the two queues, 0 where not set. */
  get queueSizes(): readonly [response: number, request: number] {
    return [this.#vrings[RESPONSE_QUEUE].size, this.#vrings[REQUEST_QUEUE].size];
  }

  close(): void {
    this.#connection.close();
  }

  #receive(message: VhostUserMessage): void {
    const wantsAck =
      (message.flags & NEED_REPLY) !== 0 && hasBit(this.#protocolFeatures, protocolFeature.REPLY_ACK);
    let reply: Uint8Array | undefined;
    try {
      reply = this.#handle(message);
    } catch (error) {
      if (!(error instanceof FrontendError) || !wantsAck) throw error;
      this.#events.onRefused?.(error);
      this.#connection.send(message.id, REPLY, u64Payload(1n));
      return;
    }
    if (reply !== undefined) this.#connection.send(message.id, REPLY, reply);
    else if (wantsAck) this.#connection.send(message.id, REPLY, u64Payload(0n));
  }

  #handle(message: VhostUserMessage): Uint8Array | undefined {
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
    const none = 0;
    const u64 = 8;
    const state = 8;
    /** GET requests may come with a payload that nobody reads. */
    const any = [0, 8] as const;
    const handlers: [number, Handler][] = [
      [request.GET_FEATURES, { size: any, run: () => u64Payload(this.#offered) }],
      [
        request.SET_FEATURES,
        { size: u64, run: ({ payload }) => this.#setFeatures(payload.getBigUint64(0, true)) },
      ],
      [request.SET_OWNER, { size: any, run: () => undefined }],
      [request.RESET_OWNER, { size: any, run: () => this.#disableAll() }],
      [request.GET_PROTOCOL_FEATURES, { size: any, run: () => u64Payload(PROTOCOL_FEATURES) }],
      [
        request.SET_PROTOCOL_FEATURES,
        { size: u64, run: ({ payload }) => this.#setProtocolFeatures(payload.getBigUint64(0, true)) },
      ],
      [request.GET_QUEUE_NUM, { size: any, run: () => u64Payload(BigInt(this.#vrings.length)) }],
      [
        request.SET_MEM_TABLE,
        // Some senders pad the payload to the size of a larger table.
        {
          size: [8, 8 + MAX_TABLE_REGIONS * REGION_SIZE],
          fds: MAX_TABLE_REGIONS,
          run: (m) => this.#changeMemory(() => this.#memory.set(m)),
        },
      ],
      [request.GET_MAX_MEM_SLOTS, { size: any, run: () => u64Payload(BigInt(MAX_MEMORY_SLOTS)) }],
      [
        request.ADD_MEM_REG,
        {
          size: 8 + REGION_SIZE,
          fds: 1,
          run: (message) => this.#changeMemory(() => this.#memory.add(message)),
        },
      ],
      [
        request.REM_MEM_REG,
        {
          size: 8 + REGION_SIZE,
          fds: 1,
          run: (message) => this.#changeMemory(() => this.#memory.remove(message)),
        },
      ],
      [request.SET_VRING_NUM, { size: state, run: ({ payload }) => this.#setSize(payload) }],
      [request.SET_VRING_ADDR, { size: 40, run: ({ payload }) => this.#setAddresses(payload) }],
      [request.SET_VRING_BASE, { size: state, run: ({ payload }) => this.#setBase(payload) }],
      [request.GET_VRING_BASE, { size: state, run: ({ payload }) => this.#getBase(payload) }],
      [request.SET_VRING_KICK, { size: u64, fds: 1, run: (message) => this.#setKick(message) }],
      [request.SET_VRING_CALL, { size: u64, fds: 1, run: (message) => this.#setCall(message) }],
      [
        request.SET_VRING_ERR,
        { size: u64, fds: 1, run: (message) => this.#vringFd(message, (vring, fd) => vring.setError(fd)) },
      ],
      [request.SET_VRING_ENABLE, { size: state, run: ({ payload }) => this.#setEnable(payload) }],
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

  // ---- features ----

  #setFeatures(features: bigint): undefined {
    if ((features & ~this.#offered) !== 0n) {
      throw new FrontendError("feature-not-offered", `SET_FEATURES has 0x${features.toString(16)}`);
    }
    this.#features = features;
    // Without the bit there is no SET_VRING_ENABLE: rings are enabled from the start.
    if (!hasBit(features, feature.PROTOCOL_FEATURES)) {
      for (const vring of this.#vrings) vring.enabled = true;
      this.#update();
    }
  }

  #setProtocolFeatures(features: bigint): undefined {
    if ((features & ~PROTOCOL_FEATURES) !== 0n) {
      throw new FrontendError("feature-not-offered", `SET_PROTOCOL_FEATURES has 0x${features.toString(16)}`);
    }
    this.#protocolFeatures = features;
  }

  #setStatus(status: number): undefined {
    this.#status = status & 0xff;
    if (status !== 0) return;
    // Frontends send it for a pause too (QEMU: vhost_reset_status): the restart tells which it was.
    for (const vring of this.#vrings) this.#stopVring(vring);
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

  // ---- memory ----

  /** Memory changes while the device is stopped; it goes on where it stood as soon as its rings are mapped again. */
  #changeMemory(change: () => void): undefined {
    const running = this.#running || this.#lacksMemory;
    this.#halt();
    try {
      change();
    } finally {
      this.#lacksMemory = running;
      this.#update();
    }
  }

  // ---- vrings ----

  #vring(index: number): Vring {
    const vring = this.#vrings[index];
    if (vring === undefined) throw new FrontendError("ring-index", `there is no queue ${index}`);
    return vring;
  }

  /** A vring that is set up: its parts may change only while it does not run. */
  #stoppedVring(index: number): Vring {
    const vring = this.#vring(index);
    if (vring.queue !== undefined) {
      this.#halt();
      // Its other parts may change too: it runs again with the next KICK or ENABLE.
      vring.changing = true;
    }
    return vring;
  }

  #setSize(payload: DataView): undefined {
    const size = payload.getUint32(4, true);
    if (!isQueueSize(size)) throw new FrontendError("ring-size", `a queue cannot have ${size} entries`);
    this.#stoppedVring(payload.getUint32(0, true)).size = size;
    this.#update();
  }

  #setAddresses(payload: DataView): undefined {
    const flags = payload.getUint32(4, true);
    if ((flags & VRING_LOG) !== 0)
      throw new FrontendError("feature-not-offered", "SET_VRING_ADDR asks for a log");
    const number = (offset: number) => Number(payload.getBigUint64(offset, true));
    this.#stoppedVring(payload.getUint32(0, true)).addresses = {
      descriptors: number(8),
      used: number(16),
      available: number(24),
    };
    this.#update();
  }

  #setBase(payload: DataView): undefined {
    this.#stoppedVring(payload.getUint32(0, true)).base = payload.getUint32(4, true);
    this.#update();
  }

  #getBase(payload: DataView): Uint8Array {
    const index = payload.getUint32(0, true);
    const vring = this.#vring(index);
    this.#stopVring(vring);
    return statePayload(index, vring.base);
  }

  /** The ring starts again with the next SET_VRING_KICK. */
  #stopVring(vring: Vring): void {
    vring.started = false;
    this.#lacksMemory = false;
    this.#update();
    vring.clearKick();
    vring.kicked = false;
  }

  #setKick(message: VhostUserMessage): undefined {
    return this.#vringFd(message, (vring, fd) => {
      const result = vring.setKick(fd);
      if (result < 0)
        throw new FrontendError("kick-unusable", `cannot wait for the kick descriptor: ${errnoName(result)}`);
      vring.started = true;
      vring.changing = false;
      this.#update();
      // A kick may have gone to the old descriptor.
      if (this.#running) this.#device.rescan();
    });
  }

  #setCall(message: VhostUserMessage): undefined {
    return this.#vringFd(message, (vring, fd) => {
      vring.setCall(fd);
      if (!this.#running) return;
      // A call may have gone to the old descriptor, a kick may have been lost meanwhile.
      vring.call();
      this.#device.rescan();
    });
  }

  #vringFd(message: VhostUserMessage, use: (vring: Vring, fd: number | undefined) => void): undefined {
    const value = Number(message.payload.getBigUint64(0, true));
    const vring = this.#vring(value & 0xff);
    const fd = message.takeFd();
    if ((fd === undefined) !== ((value & VRING_NO_FD) !== 0)) {
      if (fd !== undefined) closeFd(fd);
      throw new FrontendError(
        "descriptor-count",
        `${requestName(message.id)} and its descriptor do not agree`,
      );
    }
    use(vring, fd);
  }

  #setEnable(payload: DataView): undefined {
    if (!hasBit(this.#features, feature.PROTOCOL_FEATURES)) {
      throw new FrontendError("feature-not-offered", "SET_VRING_ENABLE needs VHOST_USER_F_PROTOCOL_FEATURES");
    }
    const vring = this.#vring(payload.getUint32(0, true));
    vring.enabled = payload.getUint32(4, true) !== 0;
    vring.changing = false;
    this.#update();
    if (this.#running && vring.enabled) this.#device.rescan();
  }

  #disableAll(): undefined {
    for (const vring of this.#vrings) vring.enabled = false;
    this.#update();
  }

  // ---- the device ----

  /** Runs the device when both rings are set up, started and enabled; stops it otherwise. */
  #update(): void {
    if (this.#lacksMemory && this.#vrings.every((vring) => vring.isMapped(this.#memory.memory))) {
      this.#lacksMemory = false;
    }
    const ready = this.#vrings.every((vring) => vring.isReady);
    if (ready && !this.#running && !this.#lacksMemory && this.#memory.memory.regions.length > 0)
      this.#start();
    else if (!ready && this.#running) this.#halt();
  }

  #start(): void {
    const [response, requestRing] = this.#vrings;
    const indirect = hasBit(this.#features, feature.INDIRECT);
    const eventIndex = hasBit(this.#features, feature.EVENT_IDX);
    try {
      const rings = {
        response: response.open(this.#memory.memory, indirect, eventIndex),
        request: requestRing.open(this.#memory.memory, indirect, eventIndex),
        nameService: hasBit(this.#features, RPMSG_F_NS),
        call: (queue: number) => this.#vring(queue).call(),
        failed: (queue: number) => this.#vring(queue).fail(),
      };
      this.#running = true;
      this.#device.start(rings);
    } catch (error) {
      this.#running = false;
      for (const vring of this.#vrings) {
        vring.started = false;
        vring.queue = undefined;
      }
      throw error;
    }
    for (const [index, vring] of this.#vrings.entries()) {
      if (!vring.kicked) continue;
      vring.kicked = false;
      this.#device.kicked(index);
    }
  }

  /** Stops the device and keeps where its queues stand. */
  #halt(): void {
    if (!this.#running) return;
    this.#running = false;
    const stopped = this.#device.stop();
    for (const [index, vring] of this.#vrings.entries()) {
      const position = stopped?.[index];
      if (position !== undefined) vring.base = position.base;
      vring.queue = undefined;
    }
  }

  #kicked(index: number): void {
    if (this.#running) this.#device.kicked(index);
    else this.#vring(index).kicked = true;
  }

  #resetDevice(): undefined {
    this.#running = false;
    this.#lacksMemory = false;
    this.#status = 0;
    this.#device.reset();
    for (const vring of this.#vrings) vring.reset();
  }

  #closed(error: Error | undefined): void {
    this.#resetDevice();
    for (const vring of this.#vrings) vring.close();
    this.#memory.close();
    if (this.#backendRequestFd !== undefined) closeFd(this.#backendRequestFd);
    this.#backendRequestFd = undefined;
    this.#events.onClose(error);
  }
}
