import { onTestFinished } from "vitest";
import type { DeviceEvents } from "../../../rpmsg/device.ts";
import { RpmsgDevice } from "../../../rpmsg/device.ts";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { relayConnection } from "../../../rpmsg/relay/relay-connection.ts";
import { VhostUserBackend } from "../../../rpmsg/vhost-user/backend.ts";
import type { FrontendSetup } from "../../../rpmsg/vhost-user/frontend.ts";
import { VhostUserFrontend } from "../../../rpmsg/vhost-user/frontend.ts";
import { bits, feature } from "../../../rpmsg/vhost-user/messages.ts";
import type { DriverOptions } from "./device-driver.ts";
import { turns } from "./device-driver.ts";
import { GUEST_BASE, MEMORY_SIZE, SharedGuest } from "./vhost-user-session.ts";

/** A driver by hand, its frontend, a relay, and the backend and the device of the bridge. */
export class RelayedGuest {
  readonly device: RpmsgDevice;
  readonly frontend: VhostUserFrontend;
  /** The bridge's. */
  readonly backend: VhostUserBackend;
  /** The guest's rings; `renew` makes others. */
  guest: SharedGuest;
  readonly calls = [0, 0];
  readonly broken: string[] = [];
  /** The bridge's connection is over. */
  readonly closed: Promise<void>;
  readonly #options: DriverOptions;

  private constructor(options: DriverOptions, events: DeviceEvents) {
    this.#options = options;
    const poller = new Poller();
    const [frontendEnd, guestEnd] = socketPair();
    const [relayEnd, bridgeEnd] = socketPair();
    this.device = new RpmsgDevice(events);
    let gone: () => void = () => {};
    this.closed = new Promise((resolve) => {
      gone = resolve;
    });
    this.backend = new VhostUserBackend(bridgeEnd, poller, this.device, { onClose: () => gone() });
    relayConnection(
      guestEnd,
      relayEnd,
      poller,
      {
        onRefused() {},
        onUnsealed() {},
        onRings() {},
        onBroken: (queue, { code }) => this.broken.push(`${queue} ${code}`),
        onClose() {},
      },
      {},
    );
    this.guest = new SharedGuest(options);
    const own = this.guest;
    this.frontend = new VhostUserFrontend(frontendEnd, poller, this.#setup(), {
      onCall: (queue) => {
        this.calls[queue] = (this.calls[queue] ?? 0) + 1;
      },
      onClose() {},
    });
    onTestFinished(async () => {
      this.frontend.close();
      await this.closed;
      poller.close();
      own.memory.close();
      this.guest.memory.close();
    });
  }

  /** A guest whose driver has posted these buffers, and kicked. */
  static async boot(
    buffers: readonly number[] = [512, 512, 512, 512],
    options: DriverOptions = {},
    events: DeviceEvents = {},
  ): Promise<RelayedGuest> {
    const relayed = new RelayedGuest(options, events);
    await relayed.frontend.negotiate();
    for (const length of buffers) relayed.guest.post(length);
    await relayed.frontend.start();
    await relayed.kick(0);
    return relayed;
  }

  /** A new driver, whose rings are empty, after a stop. */
  renew(): SharedGuest {
    this.guest.memory.close();
    this.guest = new SharedGuest(this.#options);
    this.frontend.change(this.#setup());
    return this.guest;
  }

  /** Kicks, and waits until messages have gone either way. */
  async kick(queue: number): Promise<void> {
    this.frontend.kick(queue);
    await this.settle();
  }

  /** Everybody has had turns enough for what is under way. */
  settle(): Promise<void> {
    return turns(12);
  }

  #setup(): FrontendSetup {
    const { guest } = this;
    const eventIndex = this.#options.eventIndex === true ? [feature.EVENT_IDX] : [];
    return {
      features: bits(0, feature.VERSION_1, feature.INDIRECT, ...eventIndex),
      memory: [
        {
          guestAddress: GUEST_BASE,
          userAddress: GUEST_BASE,
          size: MEMORY_SIZE,
          fileOffset: 0,
          fd: guest.region.fd,
        },
      ],
      vrings: guest.rings.map((addresses) => ({ size: guest.size, addresses })),
    };
  }
}
