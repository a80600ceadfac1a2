import { readSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect } from "vitest";
import type { Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd, connectUnix } from "../../../rpmsg/posix/unix-socket.ts";
import type { InflightFile } from "../../../rpmsg/vhost-user/frontend.ts";
import { VhostUserFrontend } from "../../../rpmsg/vhost-user/frontend.ts";
import type { DriverQueue } from "../../../rpmsg/virtqueue/driver-queue.ts";
import { message } from "./device-driver.ts";
import { setupOf } from "./own-frontend.ts";
import { SharedGuest } from "./vhost-user-session.ts";

const QUEUE_SIZE = 64;
const GUEST_ADDRESS = 0x400;
/** Where the guest sends. */
export const SERVICE_ADDRESS = 1030;

/** One buffer for each descriptor of a queue, all of them out or free. */
class Buffers {
  readonly #queue: DriverQueue;
  readonly #writable: boolean;
  readonly #out = new Map<number, number>();
  readonly #free: number[] = [];

  constructor(guest: SharedGuest, queue: DriverQueue, writable: boolean) {
    this.#queue = queue;
    this.#writable = writable;
    for (let i = 0; i < QUEUE_SIZE; i++) this.#free.push(guest.allocate(512));
  }

  get out(): number {
    return this.#out.size;
  }

  /** Offers all that are free. */
  offer(fill: (address: number) => number): void {
    for (let address = this.#free.pop(); address !== undefined; address = this.#free.pop()) {
      const head = this.#queue.add(address, fill(address), this.#writable);
      expect(head).not.toBe(-1);
      this.#out.set(head, address);
    }
    this.#queue.publish();
  }

  /** Takes what came back. A head that is not out, or comes back twice, throws. */
  collect(use: (address: number) => void): void {
    for (let head = this.#queue.popUsed(); head !== -1; head = this.#queue.popUsed()) {
      const address = this.#out.get(head);
      if (address === undefined || !this.#out.delete(head)) throw new Error(`head ${head} came back twice`);
      use(address);
      this.#free.push(address);
    }
  }
}

/** A guest with its request queue full of messages and its response queue full of buffers, as long as it is busy. */
export class BusyGuest {
  readonly guest = new SharedGuest({ size: QUEUE_SIZE });
  readonly requests = new Buffers(this.guest, this.guest.request, false);
  readonly responses = new Buffers(this.guest, this.guest.response, true);
  /** Texts of the service's messages. */
  readonly received: string[] = [];
  sent = 0;
  returned = 0;
  busy = true;
  readonly #poller: Poller;
  #inflight: InflightFile | undefined;

  constructor(poller: Poller) {
    this.#poller = poller;
  }

  /** Connects to a backend and goes on where the guest stands, as a monitor whose backend is back. */
  async attach(path: string): Promise<{ frontend: VhostUserFrontend; closed: Promise<void> }> {
    const fd = connectUnix(path);
    expect(fd).toBeGreaterThanOrEqual(0);
    let gone: () => void = () => {};
    const closed = new Promise<void>((resolve) => {
      gone = resolve;
    });
    const events = { onCall: () => this.work(), onClose: () => gone() };
    const frontend = new VhostUserFrontend(fd, this.#poller, setupOf(this.guest, 1), events);
    await frontend.negotiate();
    this.#inflight = await frontend.trackInflight(this.#inflight);
    // The base is gone with the backend: QEMU takes the index of the used ring too.
    const bases = this.guest.rings.map(({ used }) => this.guest.bytes(used + 2, 2).readUInt16LE());
    try {
      await frontend.start(bases);
    } catch (error) {
      // One that dies with the first message takes the answer to the last request along.
      if (!frontend.closed) throw error;
    }
    for (const queue of [0, 1]) frontend.kick(queue);
    return { frontend, closed };
  }

  /** Works until something holds, or the backend is gone. */
  async until(frontend: VhostUserFrontend, holds: () => boolean): Promise<void> {
    while (!holds() && !frontend.closed) {
      this.work();
      for (const queue of [0, 1]) frontend.kick(queue);
      await nextTurn();
    }
  }

  /** All that was sent comes back once, and every descriptor is free. */
  async finish(frontend: VhostUserFrontend): Promise<void> {
    this.busy = false;
    await this.until(frontend, () => this.requests.out === 0);
    expect(this.returned).toBe(this.sent);
    expect(this.guest.request.free).toBe(QUEUE_SIZE);
    // A chain is unmarked after its used index is published: another process may stand between the two.
    await this.until(frontend, () => this.inflight.every((marked) => marked === 0));
    expect(this.inflight).toEqual([0, 0]);
  }

  close(): void {
    this.guest.memory.close();
    if (this.#inflight !== undefined) closeFd(this.#inflight.fd);
  }

  /** Chains of the two queues that are marked in the in-flight buffer. */
  get inflight(): number[] {
    const file = this.#inflight;
    if (file === undefined) throw new Error("the backend has no in-flight tracking");
    const region = file.size / file.queues;
    return Array.from({ length: file.queues }, (_, queue) => {
      const bytes = Buffer.alloc(region);
      readSync(file.fd, bytes, 0, region, file.offset + queue * region);
      let count = 0;
      for (let head = 0; head < file.entries; head++) count += bytes[16 + 16 * head] ?? 0;
      return count;
    });
  }

  work(): void {
    this.requests.collect(() => this.returned++);
    this.responses.collect((address) => {
      const bytes = this.guest.bytes(address, 512);
      const text = bytes.subarray(16, 16 + bytes.readUInt16LE(12)).toString();
      if (bytes.readUInt32LE(0) === SERVICE_ADDRESS) this.received.push(text);
    });
    this.responses.offer(() => 512);
    if (!this.busy) return;
    this.requests.offer((address) => {
      const bytes = message(GUEST_ADDRESS, SERVICE_ADDRESS, `${this.sent++}`);
      this.guest.bytes(address, bytes.length).set(bytes);
      return bytes.length;
    });
  }
}
