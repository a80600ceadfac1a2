import type { MemoryWindow, Poller, RingAddresses } from "../rpmsg/index.ts";
import {
  bits,
  closeFd,
  createMemory,
  errnoName,
  feature,
  GuestMemory,
  hasBit,
  mappedRegion,
  RPMSG_F_NS,
  SystemError,
  VhostUserFrontend,
} from "../rpmsg/index.ts";
import type { EmulatedGuest } from "./emulated-guest.ts";
import { MEMORY_BASE } from "./layout.ts";

const WANTED = bits(RPMSG_F_NS, feature.EVENT_IDX, feature.VERSION_1);

/** Frontend-virtual address of the guest's memory: where a monitor might have it, and not its guest address. */
const USER_BASE = 0x7f00_0000_0000;

/**
 * An emulated guest behind a vhost-user socket: memory in a sealed memfd, eventfds for kicks and calls, and the
 * frontend of a virtual machine monitor around it.
 */
export class VhostUserGuest {
  readonly #guest: EmulatedGuest;
  readonly #frontend: VhostUserFrontend;
  readonly #memory = new GuestMemory();
  readonly #window: MemoryWindow;
  #bases: number[] = [];
  #paused = false;

  /**
   * Takes the descriptor of a connected socket.
   * @param onClose called once when the connection is over
   * @throws SystemError, FrontendError: no memory or no descriptor is left
   */
  constructor(guest: EmulatedGuest, fd: number, poller: Poller, onClose: (error: Error | undefined) => void) {
    this.#guest = guest;
    const { layout, profile } = guest;
    const memoryFd = createMemory("rpmsg-guest", layout.size);
    if (memoryFd < 0) {
      closeFd(fd);
      throw new SystemError("socket", `cannot make guest memory: ${errnoName(memoryFd)}`);
    }
    const user = (address: number) => address - MEMORY_BASE + USER_BASE;
    const vring = (ring: RingAddresses) => ({
      size: profile.queueSize,
      addresses: {
        descriptors: user(ring.descriptors),
        available: user(ring.available),
        used: user(ring.used),
      },
    });
    // Our own view of it, in which rings are found by their guest address.
    const region = mapOrClose(fd, memoryFd, layout.size);
    this.#memory.add(region);
    [this.#window] = region.windows as [MemoryWindow];
    this.#frontend = new VhostUserFrontend(
      fd,
      poller,
      {
        features: WANTED,
        memory: [
          {
            guestAddress: MEMORY_BASE,
            userAddress: USER_BASE,
            size: layout.size,
            fileOffset: 0,
            fd: region.fd,
          },
        ],
        vrings: [vring(layout.receiveRing), vring(layout.transmitRing)],
      },
      {
        onCall: () => guest.called(),
        onClose: (error) => {
          guest.halt();
          this.#memory.close();
          onClose(error);
        },
      },
    );
  }

  /** Agrees on the features and boots. */
  async attach(): Promise<void> {
    await this.#frontend.negotiate();
    await this.#boot();
  }

  /** Boots the guest again, as a virtual machine that is reset. */
  async reboot(): Promise<void> {
    this.#guest.halt();
    if (!this.#paused) await this.#frontend.stop();
    this.#paused = false;
    await this.#boot();
  }

  /** Stops the device as a paused virtual machine does; nothing is lost. */
  async pause(): Promise<void> {
    if (this.#paused) return;
    this.#bases = await this.#frontend.stop();
    this.#paused = true;
  }

  async resume(): Promise<void> {
    if (!this.#paused) return;
    await this.#frontend.start(this.#bases);
    this.#paused = false;
    for (const queue of this.#bases.keys()) this.#frontend.kick(queue);
    this.#guest.called();
  }

  close(): void {
    this.#frontend.close();
  }

  async #boot(): Promise<void> {
    const { features } = this.#frontend;
    this.#guest.boot({
      memory: this.#memory,
      window: this.#window,
      nameService: hasBit(features, RPMSG_F_NS),
      indirect: hasBit(features, feature.INDIRECT),
      eventIndex: hasBit(features, feature.EVENT_IDX),
      kick: (queue) => this.#frontend.kick(queue),
    });
    await this.#frontend.start();
    this.#guest.run();
  }
}

/** Maps the guest's own memory; the socket is closed where that fails. */
function mapOrClose(socket: number, memory: number, size: number): ReturnType<typeof mappedRegion> {
  try {
    return mappedRegion(memory, 0, MEMORY_BASE, MEMORY_BASE, size);
  } catch (error) {
    closeFd(socket);
    throw error;
  }
}
