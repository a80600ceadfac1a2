import type { RunningRings, StoppedAt, TransportDevice } from "../device.ts";
import { isResume, REQUEST_QUEUE, RESPONSE_QUEUE } from "../device.ts";
import { GuestError } from "../errors.ts";
import type { Words } from "../memory/copy-bytes.ts";
import { copyWords } from "../memory/copy-bytes.ts";
import type { DeviceQueue } from "../virtqueue/device-queue.ts";
import { HEADER_SIZE } from "../wire/header.ts";
import { RelayRings } from "./relay-rings.ts";

/** Descriptors that are looked at in one turn, either way. */
const TURN_BUDGET = 1024;

/** What the relay asks of its connection with the bridge. */
interface Link {
  run(rings: RelayRings): void;
  halt(): void;
  reset(): void;
  kick(queue: number): void;
}

export interface RelayOptions {
  link: Link;
  /** Feature bits that the guest negotiated. */
  features: () => bigint;
  /** The guest's queues run, with these sizes. */
  onRings: (sizes: { response: number; request: number }) => void;
  /** The guest broke a queue, which is stopped until a reset. */
  onBroken: (queue: number, error: GuestError) => void;
}

/**
 * The device of an untrusted guest in a process of its own: it takes the guest's messages out of the guest's memory into
 * rings that it shares with the bridge, where it is a driver that the bridge can trust with its life, and the other way.
 *
 * The response direction keeps its meaning: each buffer that the guest posts is posted to the bridge, and what the
 * bridge puts in it goes to the guest's. So the bridge knows the guest's buffers, their number and their size, which of
 * them were read, and says "sent" when the guest has a buffer for the message. Request direction: a message is taken
 * from the guest when there is room for it, and the bridge takes it even when this process is gone.
 */
export class GuestRelay implements TransportDevice {
  readonly #options: RelayOptions;
  readonly #link: Link;
  /** Set while the guest's queues run. */
  #guest: RunningRings | undefined;
  /** Looks at the response queue's buffers when they are posted. */
  #ahead: DeviceQueue | undefined;
  /** Shared with the bridge, from a driver's start to its reset. */
  #rings: RelayRings | undefined;
  /** The bridge has been told of them. */
  #live = false;
  /** The driver has kicked its response queue: it has posted its buffers and listens. */
  #listening = false;
  /** Buffers of the guest that are posted to the bridge. */
  #posted = 0;
  /** Queues that the guest broke. */
  readonly #broken = new Set<number>();
  /** Where the guest's queues stood at the last stop. */
  #stoppedAt: StoppedAt | undefined;
  #workScheduled = false;
  readonly #headerBytes = new Uint8Array(HEADER_SIZE);
  readonly #header = new Uint32Array(this.#headerBytes.buffer);

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#link = options.link;
  }

  // ---- the guest ----

  start(guest: RunningRings): void {
    if (!isResume(this.#stoppedAt, guest)) this.reset();
    const sizes = { response: guest.response.size, request: guest.request.size };
    this.#rings ??= new RelayRings(sizes, this.#options.features());
    this.#guest = guest;
    this.#ahead = guest.response.lookAhead(this.#posted);
    this.#stoppedAt = undefined;
    this.#options.onRings(sizes);
    this.#link.run(this.#rings);
    this.#scheduleWork();
  }

  kicked(queue: number): void {
    if (queue === REQUEST_QUEUE) {
      this.#take(false);
    } else if (this.#listening) {
      this.#post();
    } else if (this.#guest !== undefined) {
      this.#listening = true;
      this.#listen();
    }
  }

  /** What is on its way is passed on as far as it can be; the bridge takes the rest when it stops. */
  stop(): StoppedAt | undefined {
    const guest = this.#guest;
    if (guest === undefined) return undefined;
    this.#flush();
    this.#stoppedAt = [guest.response.position, guest.request.position];
    this.#guest = undefined;
    this.#ahead = undefined;
    this.#link.halt();
    return this.#stoppedAt;
  }

  reset(): void {
    this.stop();
    this.#stoppedAt = undefined;
    if (this.#rings === undefined) return;
    this.#rings.close();
    this.#rings = undefined;
    this.#live = false;
    this.#listening = false;
    this.#posted = 0;
    this.#broken.clear();
    this.#link.reset();
  }

  rescan(): void {
    this.#work();
  }

  // ---- the bridge ----

  /** The bridge serves these rings now, or none. */
  settled(running: RelayRings | undefined): void {
    if (running === undefined || running !== this.#rings) return;
    this.#live = true;
    this.#work();
    this.#listen();
    // A kick may have been lost while the bridge did not run.
    this.#link.kick(REQUEST_QUEUE);
  }

  /** The bridge used buffers. */
  called(queue: number): void {
    if (queue === REQUEST_QUEUE) {
      this.#take(false);
      return;
    }
    this.#respond();
    this.#post();
  }

  // ---- messages ----

  /** Both sides' queues may be touched. */
  #usable(queue: number): RelayRings | undefined {
    return this.#live && this.#guest !== undefined && !this.#broken.has(queue) ? this.#rings : undefined;
  }

  #work(): void {
    this.#respond();
    this.#post();
    this.#take(false);
  }

  #scheduleWork(): void {
    if (this.#workScheduled) return;
    this.#workScheduled = true;
    setImmediate(() => {
      this.#workScheduled = false;
      this.#work();
    });
  }

  /** All that can be passed on at once: of either queue there is at most one full ring. */
  #flush(): void {
    const { response, request } = this.#guest as RunningRings;
    for (let turns = response.size / TURN_BUDGET; turns >= 0 && this.#respond(); turns--);
    for (let turns = response.size / TURN_BUDGET; turns >= 0 && this.#post(); turns--);
    for (let turns = request.size / TURN_BUDGET; turns >= 0 && this.#take(true); turns--);
  }

  /** The bridge hears of the driver's first kick after the buffers that were posted before it. */
  #listen(): void {
    if (!this.#listening || this.#usable(RESPONSE_QUEUE) === undefined) return;
    this.#post();
    this.#link.kick(RESPONSE_QUEUE);
  }

  /**
   * Posts the guest's new buffers to the bridge.
   * @returns whether there may be more
   */
  #post(): boolean {
    const rings = this.#usable(RESPONSE_QUEUE);
    const ahead = this.#ahead;
    if (rings === undefined || ahead === undefined) return false;
    let more = false;
    // It asks for kicks in the guest's memory.
    ahead.log = this.#guest?.response.log;
    try {
      more = this.#postAll(rings, ahead);
    } catch (error) {
      this.#break(RESPONSE_QUEUE, error);
    }
    if (rings.response.publish() && this.#listening) this.#link.kick(RESPONSE_QUEUE);
    if (more) this.#scheduleWork();
    return more;
  }

  #postAll(rings: RelayRings, ahead: DeviceQueue): boolean {
    for (let budget = TURN_BUDGET; budget > 0; ) {
      if (!ahead.peek()) {
        // While the bridge has plenty, it is enough to look when it has used some.
        const wanted = !this.#listening || this.#posted <= ahead.size / 2;
        ahead.wantKicks(wanted);
        if (!wanted || !ahead.peek()) return false;
      }
      const { head, writableLength } = ahead;
      if (writableLength < HEADER_SIZE) {
        throw new GuestError("buffer-too-small", `a receive buffer of ${writableLength} bytes`);
      }
      const result = rings.post(head, writableLength);
      if (result === "full") return false;
      if (result === "out") throw new GuestError("descriptor-index", `descriptor ${head} is posted twice`);
      budget -= ahead.descriptorCount;
      ahead.skip();
      this.#posted++;
    }
    return true;
  }

  /**
   * Puts the bridge's messages in the guest's buffers.
   * @returns whether there may be more
   */
  #respond(): boolean {
    const rings = this.#usable(RESPONSE_QUEUE);
    const guest = this.#guest;
    if (rings === undefined || guest === undefined) return false;
    let more = false;
    try {
      more = this.#respondAll(rings, guest.response);
    } catch (error) {
      this.#break(RESPONSE_QUEUE, error);
    }
    if (guest.response.publish()) guest.call(RESPONSE_QUEUE);
    if (more) this.#scheduleWork();
    return more;
  }

  #respondAll(rings: RelayRings, response: DeviceQueue): boolean {
    const from = rings.response;
    from.wantCalls(false);
    for (let budget = TURN_BUDGET; budget > 0; ) {
      let head = from.popUsed();
      if (head === -1) {
        from.wantCalls(true);
        head = from.popUsed();
        if (head === -1) return false;
        from.wantCalls(false);
      }
      const written = from.usedLength;
      const at = rings.responseAt(head);
      rings.giveResponse(head);
      this.#posted--;
      // It was there when it was posted.
      if (!response.peek()) throw new GuestError("avail-index-jump", "a posted buffer was taken back");
      budget -= response.descriptorCount;
      if (response.writableLength < written) {
        throw new GuestError(
          "buffer-too-small",
          `a posted buffer shrank to ${response.writableLength} bytes`,
        );
      }
      response.writeWords(rings.window, at, written);
      response.complete(written);
    }
    return true;
  }

  /**
   * Takes the guest's messages, as far as there is room for them.
   * @param all as far as there is any room: the guest's queue stops
   * @returns whether there may be more for which there is room
   */
  #take(all: boolean): boolean {
    const rings = this.#usable(REQUEST_QUEUE);
    const guest = this.#guest;
    if (rings === undefined || guest === undefined) return false;
    let more = false;
    try {
      more = this.#takeAll(rings, guest.request, all);
    } catch (error) {
      this.#break(REQUEST_QUEUE, error);
    }
    // First the bridge has them, then they are done for the guest: what happens in between loses nothing.
    if (rings.request.publish()) this.#link.kick(REQUEST_QUEUE);
    if (guest.request.publish()) guest.call(REQUEST_QUEUE);
    if (more) this.#scheduleWork();
    return more;
  }

  #takeAll(rings: RelayRings, request: DeviceQueue, all: boolean): boolean {
    rings.request.wantCalls(false);
    rings.reclaim();
    request.wantKicks(false);
    for (let budget = TURN_BUDGET; budget > 0; ) {
      if (!request.peek()) {
        request.wantKicks(true);
        // Kicks were off: what came meanwhile is seen only by looking again.
        if (!request.peek()) return false;
        request.wantKicks(false);
      }
      const bytes = this.#messageBytes(request);
      let at = rings.room(bytes, all);
      if (at === -1) {
        rings.request.wantCalls(true);
        rings.reclaim();
        at = rings.room(bytes, all);
        // The bridge calls when it has read some.
        if (at === -1) return false;
        rings.request.wantCalls(false);
      }
      budget -= request.descriptorCount;
      copyChain(request, rings.window, at, bytes);
      rings.offer(at, bytes);
      request.complete(0);
    }
    return true;
  }

  /**
   * Bytes of the current chain that are the message: its buffer may be longer. One whose header does not fit it goes on
   * as it is, for the bridge to count; the bridge checks the copy.
   */
  #messageBytes(request: DeviceQueue): number {
    const { readableLength } = request;
    if (readableLength < HEADER_SIZE) return readableLength;
    request.gather(this.#headerBytes, HEADER_SIZE);
    const length = (this.#header[3] as number) & 0xffff;
    return length > readableLength - HEADER_SIZE ? HEADER_SIZE : HEADER_SIZE + length;
  }

  #break(queue: number, error: unknown): void {
    // Anything else is a fault of ours.
    if (!(error instanceof GuestError)) throw error;
    this.#broken.add(queue);
    this.#guest?.failed(queue, error);
    this.#options.onBroken(queue, error);
  }
}

/** Copies the first bytes of the current chain. */
function copyChain(queue: DeviceQueue, to: Words, at: number, bytes: number): void {
  if (queue.readableCount === 1) {
    const { window, offset } = queue.first;
    copyWords(window, offset, to, at, bytes);
  } else if (bytes > 0) {
    queue.gather(to.u8.subarray(at, at + bytes), bytes);
  }
}
