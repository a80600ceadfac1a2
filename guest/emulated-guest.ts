import type { MemoryWindow, RpmsgDevice } from "../rpmsg/index.ts";
import {
  DeviceQueue,
  DriverQueue,
  GuestMemory,
  heapRegion,
  REQUEST_QUEUE,
  RESPONSE_QUEUE,
} from "../rpmsg/index.ts";
import { GuestBus } from "./bus.ts";
import type { GuestLayout } from "./layout.ts";
import { layoutOf, MEMORY_BASE } from "./layout.ts";
import type { Profile, ProfileName } from "./profiles.ts";
import { profiles } from "./profiles.ts";
import type { ServiceFactory } from "./service.ts";
import { echo } from "./services/echo.ts";
import { sensor } from "./services/sensor.ts";
import { sink } from "./services/sink.ts";
import { source } from "./services/source.ts";
import { tty } from "./services/tty.ts";

/** The services that an emulated guest announces unless it is told otherwise. */
const demoServices: Readonly<Record<string, ServiceFactory>> = { echo, tty, sensor, source, sink };

export interface EmulatedGuestOptions {
  profile?: ProfileName;
  services?: Readonly<Record<string, ServiceFactory>>;
}

/** What connects the guest's queues with a device. */
export interface GuestLink {
  readonly memory: GuestMemory;
  readonly window: MemoryWindow;
  readonly nameService: boolean;
  readonly indirect: boolean;
  readonly eventIndex: boolean;
  readonly kick: (queue: number) => void;
}

/**
 * An emulated guest: the driver side of virtio-rpmsg with services behind its endpoints. It runs in this process on
 * heap memory (`attachInProcess`), or as a process of its own over vhost-user (`VhostUserGuest`).
 */
export class EmulatedGuest {
  readonly profile: Profile;
  readonly layout: GuestLayout;
  readonly #services: ReadonlyMap<string, ServiceFactory>;
  #bus: GuestBus | undefined;

  constructor(options: EmulatedGuestOptions = {}) {
    this.profile = profiles[options.profile ?? "linux"];
    this.layout = layoutOf(this.profile);
    this.#services = new Map(Object.entries(options.services ?? demoServices));
  }

  get bus(): GuestBus | undefined {
    return this.#bus;
  }

  /** Boots: zeroed memory, new rings, receive buffers posted. The device may be started afterwards. */
  boot(link: GuestLink): void {
    this.halt();
    const { layout, profile } = this;
    link.window.u8.fill(0);
    const setup = {
      memory: link.memory,
      size: profile.queueSize,
      indirect: link.indirect,
      eventIndex: link.eventIndex,
    };
    this.#bus = new GuestBus({
      profile,
      window: link.window,
      receive: new DriverQueue({ ...setup, addresses: layout.receiveRing }),
      transmit: new DriverQueue({ ...setup, addresses: layout.transmitRing }),
      receiveBuffers: layout.receiveBuffers,
      transmitBuffers: layout.transmitBuffers,
      nameService: link.nameService,
      serviceFor: (name) => this.#serviceFor(name),
      kick: link.kick,
    });
  }

  /** The device runs: announces the services. */
  run(): void {
    this.#bus?.start(this.#services);
  }

  /** The device called. */
  called(): void {
    this.#bus?.poll();
  }

  /** Stops at once, as on a power cut. */
  halt(): void {
    this.#bus?.stop();
    this.#bus = undefined;
  }

  /** What answers a service of the host: ours of that name, a shell behind names of terminals, else an echo. */
  #serviceFor(name: string): ServiceFactory {
    return this.#services.get(name) ?? (name.endsWith("tty") ? tty : echo);
  }
}

/** The link of an emulated guest with a device in the same process. */
export interface InProcessLink {
  /** Boots the guest again; the device sees a reset. */
  reboot(): void;
  /** Stops the device as a paused virtual machine does; nothing is lost. */
  pause(): void;
  resume(): void;
  /** The guest is gone. */
  close(): void;
}

/**
 * Attaches a guest to a device in this process: heap memory, no native code, kicks and calls as tasks.
 */
export function attachInProcess(guest: EmulatedGuest, device: RpmsgDevice): InProcessLink {
  const region = heapRegion(MEMORY_BASE, guest.layout.size);
  const memory = new GuestMemory();
  memory.add(region);
  const [window] = region.windows as [MemoryWindow];
  const { layout, profile } = guest;
  let epoch = 0;
  let paused = false;
  let bases: readonly [response: number, request: number] = [0, 0];
  const pending = [false, false];
  const missed = [false, false];
  let callPending = false;

  const kick = (queue: number): void => {
    if (paused) {
      missed[queue] = true;
      return;
    }
    if (pending[queue] === true) return;
    pending[queue] = true;
    const current = epoch;
    // A task of its own: whoever kicks and calls in turn leaves others their turn.
    setImmediate(() => {
      pending[queue] = false;
      if (current !== epoch) return;
      if (paused) missed[queue] = true;
      else device.kicked(queue);
    });
  };
  const call = (): void => {
    if (callPending) return;
    callPending = true;
    const current = epoch;
    queueMicrotask(() => {
      callPending = false;
      if (current === epoch && !paused) guest.called();
    });
  };
  const start = (): void => {
    const setup = { memory, size: profile.queueSize, indirect: true, eventIndex: true };
    device.start({
      response: new DeviceQueue({ ...setup, addresses: layout.receiveRing }, bases[RESPONSE_QUEUE]),
      request: new DeviceQueue({ ...setup, addresses: layout.transmitRing }, bases[REQUEST_QUEUE]),
      nameService: true,
      call,
      failed: () => {},
    });
  };
  const boot = (): void => {
    epoch++;
    bases = [0, 0];
    paused = false;
    callPending = false;
    pending.fill(false);
    missed.fill(false);
    guest.boot({ memory, window, nameService: true, indirect: true, eventIndex: true, kick });
    start();
    guest.run();
  };
  boot();

  return {
    reboot() {
      device.stop();
      boot();
    },
    pause() {
      const stopped = device.stop();
      if (stopped === undefined) return;
      paused = true;
      bases = [stopped[RESPONSE_QUEUE].base, stopped[REQUEST_QUEUE].base];
    },
    resume() {
      if (!paused) return;
      paused = false;
      start();
      // What the guest heard of before it was paused it works on now.
      guest.called();
      for (const queue of missed.keys()) {
        if (missed[queue] !== true) continue;
        missed[queue] = false;
        kick(queue);
      }
    },
    close() {
      epoch++;
      guest.halt();
      device.reset();
    },
  };
}
