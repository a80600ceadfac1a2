import type { TransportDevice } from "../device.ts";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RPMSG_F_NS } from "../device.ts";
import { FrontendError, SystemError } from "../errors.ts";
import { errnoName } from "../posix/errno.ts";
import type { Poller } from "../posix/poller.ts";
import { closeFd } from "../posix/unix-socket.ts";
import type { DeviceQueue } from "../virtqueue/device-queue.ts";
import type { RingAddresses } from "../virtqueue/layout.ts";
import { isQueueSize } from "../virtqueue/layout.ts";
import type { VhostUserMessage } from "./connection.ts";
import type { InflightSnapshot } from "./inflight-buffer.ts";
import { InflightBuffer } from "./inflight-buffer.ts";
import type { RegionSnapshot } from "./memory-table.ts";
import { MemoryTable } from "./memory-table.ts";
import {
  feature,
  hasBit,
  inflightPayload,
  requestName,
  statePayload,
  VRING_LOG,
  VRING_NO_FD,
} from "./messages.ts";
import type { LogSnapshot } from "./migration-log.ts";
import { MigrationLog } from "./migration-log.ts";
import { mapLog, mapVring } from "./snapshot-descriptors.ts";
import type { VringSnapshot } from "./vring.ts";
import { Vring } from "./vring.ts";

/** For a hand-over: plain data, with descriptors of the process that gives it. */
export interface VringPairSnapshot {
  readonly features: bigint;
  readonly running: boolean;
  readonly lacksMemory: boolean;
  readonly memory: readonly RegionSnapshot[];
  readonly vrings: readonly [response: VringSnapshot, request: VringSnapshot];
  readonly inflight: InflightSnapshot | undefined;
  readonly log: LogSnapshot;
}

/**
 * The two vrings as the frontend's messages tell them, the memory in which they lie, and with them whether the device
 * runs: when both are set up, started and enabled. Each request throws a FrontendError where it cannot be done.
 */
export class VringPair {
  readonly #device: TransportDevice;
  readonly #memory = new MemoryTable();
  readonly #log = new MigrationLog();
  readonly #vrings: readonly [response: Vring, request: Vring];
  #features = 0n;
  #inflight: InflightBuffer | undefined;
  #running = false;
  /** The device was stopped by a change of memory that took its rings away. */
  #lacksMemory = false;
  /** The device ran where the state is from: it does so again from `goOn` on. */
  #wasRunning = false;

  constructor(poller: Poller, device: TransportDevice) {
    this.#device = device;
    this.#vrings = [
      new Vring(poller, () => this.#kicked(RESPONSE_QUEUE)),
      new Vring(poller, () => this.#kicked(REQUEST_QUEUE)),
    ];
  }

  /** Device feature bits that the frontend set. */
  get features(): bigint {
    return this.#features;
  }

  get count(): number {
    return this.#vrings.length;
  }

  /** Sizes of the two queues, 0 where not set. */
  get sizes(): readonly [response: number, request: number] {
    return [this.#vrings[RESPONSE_QUEUE].size, this.#vrings[REQUEST_QUEUE].size];
  }

  /** Memory changes while the device is stopped; it goes on where it stood as soon as its rings are mapped again. */
  changeMemory(change: (memory: MemoryTable) => void): undefined {
    const running = this.#running || this.#lacksMemory;
    this.#halt();
    try {
      change(this.#memory);
    } finally {
      this.#lacksMemory = running;
      this.#update();
    }
  }

  /** Whether a file that is mapped here can be truncated by the frontend. */
  get hasUnsealedMemory(): boolean {
    return this.#memory.hasUnsealed || this.#log.sealed === false || this.#inflight?.sealed === false;
  }

  /** What there is to know while the device is paused. */
  snapshot(): VringPairSnapshot {
    const [response, requestRing] = this.#vrings;
    return {
      features: this.features,
      running: this.#running,
      lacksMemory: this.#lacksMemory,
      memory: this.#memory.snapshot(),
      vrings: [response.snapshot(), requestRing.snapshot()],
      inflight: this.#inflight?.snapshot(),
      log: this.#log.snapshot(),
    };
  }

  /**
   * Goes on where another process stood, on a new pair. Where that fails, it has closed what it had taken.
   * @param take the descriptors are this process's; called with each just before it is taken
   * @throws FrontendError, SystemError
   */
  restore(snapshot: VringPairSnapshot, take: (fd: number) => number): void {
    this.#features = snapshot.features;
    this.#lacksMemory = snapshot.lacksMemory;
    this.#wasRunning = snapshot.running;
    const { memory, log, inflight, vrings } = snapshot;
    try {
      for (const region of memory) this.#memory.restore({ ...region, fd: take(region.fd) });
      this.#log.restore(mapLog(log, take));
      if (inflight !== undefined)
        this.#inflight = InflightBuffer.restore({ ...inflight, fd: take(inflight.fd) });
      for (const [index, vring] of vrings.entries()) {
        const result = this.#vring(index).restore(mapVring(vring, take));
        if (result < 0) throw new SystemError("socket", `cannot wait for a kick: ${errnoName(result)}`);
      }
    } catch (error) {
      this.#release();
      throw error;
    }
    this.#updateLog();
  }

  /** Runs the device where it ran when its state was taken. */
  goOn(): void {
    if (!this.#wasRunning) return;
    this.#wasRunning = false;
    this.#start();
    // What is in the rings may have come without a kick that is told here.
    this.#device.rescan();
  }

  // ---- requests ----

  /** SET_FEATURES. Logging may begin and end while the device runs; anything else is for its next start. */
  setFeatures(features: bigint): undefined {
    const logging = hasBit(features, feature.LOG_ALL);
    if (logging) this.#checkLog(this.#log.pages?.end);
    else if (hasBit(this.#features, feature.LOG_ALL)) this.#log.release();
    this.#features = features;
    this.#updateLog();
    // Without the bit there is no SET_VRING_ENABLE: rings are enabled from the start.
    if (!hasBit(features, feature.PROTOCOL_FEATURES)) this.enableAll(true);
  }

  /** SET_LOG_BASE. Writes are logged once LOG_ALL is set too. */
  setLogBase(message: VhostUserMessage): undefined {
    this.#log.setBase(message, this.#logEnd);
    this.#updateLog();
  }

  /** SET_LOG_FD */
  setLogFd(message: VhostUserMessage): undefined {
    this.#log.setNotify(message.takeFd());
  }

  /** GET_INFLIGHT_FD: chains are tracked in the buffer of the answer. */
  getInflight(message: VhostUserMessage): { payload: Uint8Array; fd: number } {
    const buffer = InflightBuffer.create(message, this.count);
    this.#setInflight(buffer);
    return { payload: inflightPayload(buffer.description), fd: buffer.fd };
  }

  /** SET_INFLIGHT_FD */
  setInflight(message: VhostUserMessage): undefined {
    this.#setInflight(InflightBuffer.take(message, this.count));
  }

  /** SET_VRING_NUM */
  setSize(payload: DataView): undefined {
    const size = payload.getUint32(4, true);
    if (!isQueueSize(size)) throw new FrontendError("ring-size", `a queue cannot have ${size} entries`);
    this.#stoppedVring(payload.getUint32(0, true)).size = size;
    this.#update();
  }

  /** SET_VRING_ADDR */
  setAddresses(payload: DataView): undefined {
    const number = (offset: number) => Number(payload.getBigUint64(offset, true));
    const index = payload.getUint32(0, true);
    const vring = this.#vring(index);
    const addresses = { descriptors: number(8), used: number(16), available: number(24) };
    const logAddress = (payload.getUint32(4, true) & VRING_LOG) === 0 ? undefined : number(32);
    const before = vring.logAddress;
    vring.logAddress = logAddress;
    try {
      this.#checkLog(this.#log.pages?.end);
    } catch (error) {
      vring.logAddress = before;
      throw error;
    }
    // A ring that stays where it is goes on: this is how a migration begins and ends.
    if (vring.queue === undefined || !sameAddresses(vring.addresses, addresses)) {
      this.#stoppedVring(index).addresses = addresses;
    }
    this.#updateLog();
    this.#update();
  }

  /** SET_VRING_BASE */
  setBase(payload: DataView): undefined {
    this.#stoppedVring(payload.getUint32(0, true)).base = payload.getUint32(4, true);
    this.#update();
  }

  /** GET_VRING_BASE */
  getBase(payload: DataView): Uint8Array {
    const index = payload.getUint32(0, true);
    const vring = this.#vring(index);
    this.#stopVring(vring);
    return statePayload(index, vring.base);
  }

  /** SET_VRING_KICK */
  setKick(message: VhostUserMessage): undefined {
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

  /** SET_VRING_CALL */
  setCall(message: VhostUserMessage): undefined {
    return this.#vringFd(message, (vring, fd) => {
      vring.setCall(fd);
      if (!this.#running) return;
      // A call may have gone to the old descriptor, a kick may have been lost meanwhile.
      vring.call();
      this.#device.rescan();
    });
  }

  /** SET_VRING_ERR */
  setError(message: VhostUserMessage): undefined {
    return this.#vringFd(message, (vring, fd) => vring.setError(fd));
  }

  /** SET_VRING_ENABLE */
  setEnable(payload: DataView): undefined {
    if (!hasBit(this.features, feature.PROTOCOL_FEATURES)) {
      throw new FrontendError("feature-not-offered", "SET_VRING_ENABLE needs VHOST_USER_F_PROTOCOL_FEATURES");
    }
    const vring = this.#vring(payload.getUint32(0, true));
    vring.enabled = payload.getUint32(4, true) !== 0;
    vring.changing = false;
    this.#update();
    if (this.#running && vring.enabled) this.#device.rescan();
  }

  enableAll(enabled: boolean): undefined {
    for (const vring of this.#vrings) vring.enabled = enabled;
    this.#update();
  }

  stopAll(): undefined {
    for (const vring of this.#vrings) this.#stopVring(vring);
  }

  /** RESET_DEVICE: the driver is gone, and with it what it had in flight. */
  resetDevice(): void {
    this.#reset();
    this.#inflight?.clear();
  }

  close(): void {
    this.#reset();
    this.#release();
  }

  /** Closes all that the frontend has passed. */
  #release(): void {
    for (const vring of this.#vrings) vring.close();
    this.#memory.close();
    this.#inflight?.close();
    this.#inflight = undefined;
    this.#log.close();
  }

  /** The device and all that the frontend said of the vrings are reset. */
  #reset(): void {
    this.#running = false;
    this.#lacksMemory = false;
    this.#device.reset();
    for (const vring of this.#vrings) vring.reset();
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

  /** The ring starts again with the next SET_VRING_KICK. */
  #stopVring(vring: Vring): void {
    vring.started = false;
    this.#lacksMemory = false;
    this.#update();
    vring.clearKick();
    vring.kicked = false;
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

  // ---- what outlives the device: the log and the chains in flight ----

  /** Guest addresses below this one may be written to a log. */
  get #logEnd(): number {
    return Math.max(this.#memory.end, ...this.#vrings.map((vring) => vring.logEnd));
  }

  /** @throws FrontendError log-range: a log that ends at `end` does not cover all that may be written to it */
  #checkLog(end: number | undefined): void {
    if (end !== undefined && end < this.#logEnd) {
      throw new FrontendError("log-range", "the log ends before the guest's memory or a used ring's address");
    }
  }

  #updateLog(): void {
    const pages = hasBit(this.#features, feature.LOG_ALL) ? this.#log.pages : undefined;
    this.#memory.limit = pages?.end ?? Number.POSITIVE_INFINITY;
    for (const vring of this.#vrings) vring.logTo(pages);
  }

  /** From here on chains are tracked in another buffer. */
  #setInflight(buffer: InflightBuffer): void {
    this.#halt();
    this.#inflight?.close();
    this.#inflight = buffer;
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
    try {
      const rings = {
        response: this.#open(RESPONSE_QUEUE),
        request: this.#open(REQUEST_QUEUE),
        nameService: hasBit(this.features, RPMSG_F_NS),
        call: (queue: number) => this.#vring(queue).call(),
        failed: (queue: number) => this.#vring(queue).fail(),
      };
      this.#updateLog();
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

  #open(index: 0 | 1): DeviceQueue {
    const vring = this.#vrings[index];
    const indirect = hasBit(this.features, feature.INDIRECT);
    const eventIndex = hasBit(this.features, feature.EVENT_IDX);
    const inflight = this.#inflight?.region(index, vring.size);
    return vring.open(this.#memory.memory, indirect, eventIndex, inflight);
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
}

function sameAddresses(a: RingAddresses | undefined, b: RingAddresses): boolean {
  return a?.descriptors === b.descriptors && a.available === b.available && a.used === b.used;
}
