import { readSync } from "node:fs";
import type { EmulatedGuest } from "../../guest/index.ts";
import { MEMORY_BASE } from "../../guest/layout.ts";
import type { MemoryWindow, RingAddresses } from "../../rpmsg/index.ts";
import {
  bits,
  closeFd,
  connectUnix,
  createMemory,
  feature,
  GuestMemory,
  hasBit,
  mappedRegion,
  Poller,
  RPMSG_F_NS,
  ringSizes,
  VhostUserFrontend,
} from "../../rpmsg/index.ts";
import type { InflightFile } from "../../rpmsg/vhost-user/frontend.ts";

/** What a device has left behind of a queue. */
export interface QueueLeft {
  /** Chains that the driver has ever made available, and that the device has given back; modulo 65,536. */
  readonly offered: number;
  readonly returned: number;
  /** Chains that are marked as taken and not given back. */
  readonly inflight: number;
  /** `returned`, as the marks have it. */
  readonly marked: number;
}

/**
 * An emulated guest over vhost-user, as `EmulatedGuest.connect` has it, but that its memory stays when the bridge goes,
 * and the guest goes on in it: as a virtual machine whose backend has died. What the device has taken is tracked
 * (SET_INFLIGHT_FD).
 */
export class LastingGuest {
  /** Settled when the connection is over, with what the device may write as it was then. */
  readonly closed: Promise<Buffer>;
  readonly #guest: EmulatedGuest;
  readonly #poller = new Poller();
  readonly #frontend: VhostUserFrontend;
  readonly #memory = new GuestMemory();
  readonly #window: MemoryWindow;
  #inflight: InflightFile | undefined;

  private constructor(guest: EmulatedGuest, path: string) {
    this.#guest = guest;
    const { layout, profile } = guest;
    const memory = createMemory("lasting-guest", layout.size);
    const region = mappedRegion(memory, 0, MEMORY_BASE, MEMORY_BASE, layout.size);
    this.#memory.add(region);
    [this.#window] = region.windows as [MemoryWindow];
    const socket = connectUnix(path);
    if (socket < 0) throw new Error(`cannot connect: ${socket}`);
    let gone: (left: Buffer) => void = () => {};
    this.closed = new Promise((resolve) => {
      gone = resolve;
    });
    this.#frontend = new VhostUserFrontend(
      socket,
      this.#poller,
      {
        features: bits(RPMSG_F_NS, feature.EVENT_IDX, feature.VERSION_1),
        memory: [
          {
            guestAddress: MEMORY_BASE,
            userAddress: MEMORY_BASE,
            size: layout.size,
            fileOffset: 0,
            fd: region.fd,
          },
        ],
        vrings: this.#rings.map((addresses) => ({ size: profile.queueSize, addresses })),
      },
      { onCall: () => guest.called(), onClose: () => gone(this.deviceBytes()) },
    );
  }

  static async attach(guest: EmulatedGuest, path: string): Promise<LastingGuest> {
    const lasting = new LastingGuest(guest, path);
    const frontend = lasting.#frontend;
    await frontend.negotiate();
    lasting.#inflight = await frontend.trackInflight();
    guest.boot({
      memory: lasting.#memory,
      window: lasting.#window,
      nameService: hasBit(frontend.features, RPMSG_F_NS),
      indirect: false,
      eventIndex: hasBit(frontend.features, feature.EVENT_IDX),
      kick: (queue) => frontend.kick(queue),
    });
    await frontend.start();
    guest.run();
    return lasting;
  }

  /** All that only the device writes: both used rings, the guest's receive buffers, the marks of what it has taken. */
  deviceBytes(): Buffer {
    const { layout, profile } = this.#guest;
    const used = this.#rings.map((ring) => this.#bytes(ring.used, ringSizes(profile.queueSize).used));
    const buffers = this.#bytes(layout.receiveBuffers, profile.bufferCount * profile.bufferSize);
    return Buffer.concat([...used, buffers, this.#marks()]);
  }

  /** How both queues stand. */
  left(): QueueLeft[] {
    const { size, queues, entries } = this.#tracked;
    const marks = this.#marks();
    return this.#rings.map((ring, queue) => {
      const region = marks.subarray((queue * size) / queues);
      let inflight = 0;
      for (let head = 0; head < entries; head++) inflight += region[16 + 16 * head] as number;
      return {
        offered: this.#bytes(ring.available + 2, 2).readUInt16LE(),
        returned: this.#bytes(ring.used + 2, 2).readUInt16LE(),
        inflight,
        marked: region.readUInt16LE(14),
      };
    });
  }

  close(): void {
    this.#guest.halt();
    this.#frontend.close();
    if (this.#inflight !== undefined) closeFd(this.#inflight.fd);
    this.#memory.close();
    this.#poller.close();
  }

  get #rings(): readonly RingAddresses[] {
    const { receiveRing, transmitRing } = this.#guest.layout;
    return [receiveRing, transmitRing];
  }

  get #tracked(): InflightFile {
    if (this.#inflight === undefined) throw new Error("the bridge does not track what is in flight");
    return this.#inflight;
  }

  /** The regions of both queues (rpmsg/virtqueue/inflight.ts has their layout). */
  #marks(): Buffer {
    const { fd, offset, size } = this.#tracked;
    const bytes = Buffer.alloc(size);
    readSync(fd, bytes, 0, size, offset);
    return bytes;
  }

  /** A copy. */
  #bytes(address: number, length: number): Buffer {
    const at = address - this.#window.guestAddress;
    return Buffer.from(this.#window.u8.slice(at, at + length));
  }
}
