import { RpmsgDevice } from "../../../rpmsg/device.ts";
import type { Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { VhostUserBackend } from "../../../rpmsg/vhost-user/backend.ts";
import type { FrontendSetup } from "../../../rpmsg/vhost-user/frontend.ts";
import { VhostUserFrontend } from "../../../rpmsg/vhost-user/frontend.ts";
import { bits, feature } from "../../../rpmsg/vhost-user/messages.ts";
import { GUEST_BASE, MEMORY_SIZE, SharedGuest, USER_BASE } from "./vhost-user-session.ts";

/** What our own frontend tells of a guest: its memory in as many regions of one file as asked for, side by side. */
export function setupOf(guest: SharedGuest, regions: number, eventIndex = false): FrontendSetup {
  const size = MEMORY_SIZE / regions;
  const user = (address: number): number => address - GUEST_BASE + USER_BASE;
  return {
    features: bits(0, feature.VERSION_1, feature.INDIRECT, ...(eventIndex ? [feature.EVENT_IDX] : [])),
    memory: Array.from({ length: regions }, (_, i) => ({
      guestAddress: GUEST_BASE + i * size,
      userAddress: USER_BASE + i * size,
      size,
      fileOffset: i * size,
      fd: guest.region.fd,
    })),
    vrings: guest.rings.map(({ descriptors, available, used }) => ({
      size: guest.size,
      addresses: { descriptors: user(descriptors), available: user(available), used: user(used) },
    })),
  };
}

export interface PairOptions {
  regions?: number;
  eventIndex?: boolean;
  size?: number;
}

/** Our own frontend and our own backend at both ends of a socket pair. */
export class FrontendPair {
  readonly device: RpmsgDevice;
  readonly guest: SharedGuest;
  readonly frontend: VhostUserFrontend;
  readonly backend: VhostUserBackend;
  /** What the device said of its state, and the codes of refused requests. */
  readonly states: string[] = [];
  readonly refused: string[] = [];

  constructor(poller: Poller, { regions = 1, eventIndex = false, size = 16 }: PairOptions = {}) {
    this.device = new RpmsgDevice({ onState: (state) => this.states.push(state) });
    this.guest = new SharedGuest({ eventIndex, size });
    const [ours, theirs] = socketPair();
    const events = {
      onRefused: (error: { code: string }) => this.refused.push(error.code),
      onClose() {},
    };
    this.backend = new VhostUserBackend(theirs, poller, this.device, events);
    const setup = setupOf(this.guest, regions, eventIndex);
    this.frontend = new VhostUserFrontend(ours, poller, setup, { onCall() {}, onClose() {} });
  }

  close(fds: readonly number[] = []): void {
    this.frontend.close();
    this.backend.close();
    this.guest.memory.close();
    for (const fd of fds) closeFd(fd);
  }
}
