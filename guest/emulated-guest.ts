import type { GuestMemory, MemoryWindow } from "../rpmsg/index.ts";
import { DriverQueue } from "../rpmsg/index.ts";
import { GuestBus } from "./bus.ts";
import { Faults, noFaults } from "./faults.ts";
import type { GuestConnection, SocketEvents } from "./guest-socket.ts";
import { GuestSocket } from "./guest-socket.ts";
import type { GuestLayout } from "./layout.ts";
import { layoutOf } from "./layout.ts";
import { namedServices, nameService } from "./named-services.ts";
import type { Profile, ProfileName } from "./profiles.ts";
import { profiles } from "./profiles.ts";
import type { NamedService, ServiceError, ServiceFactory, ServiceOptions } from "./service.ts";
import { echo } from "./services/echo.ts";
import { sensor } from "./services/sensor.ts";
import { sink } from "./services/sink.ts";
import { source } from "./services/source.ts";
import { tty } from "./services/tty.ts";

/** The services of an emulated guest unless it is told otherwise. */
const demoServices = { echo, tty, sensor, source, sink };

export interface EmulatedGuestOptions {
  /** Which implementation of the driver side it behaves like. Default: `linux`. */
  profile?: ProfileName;
  /** By name, 1 to 31 bytes each. Default: the demonstration services. */
  services?: Readonly<Record<string, ServiceFactory | ServiceOptions>>;
  /**
   * What answers the host's announcement of a name that is not among the services; undefined: nobody. Default: a line
   * shell where the name ends in `tty`, else an echo.
   */
  otherService?: (name: string) => ServiceFactory | undefined;
  /** Told of what services do wrong. Default: a warning of the process, or a line in the log of the bridge. */
  onError?: (error: ServiceError) => void;
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

/** Who holds the guest, and does what a virtual machine monitor does. */
export interface GuestControl {
  reboot(): void | Promise<void>;
  pause(): void | Promise<void>;
  resume(): void | Promise<void>;
  readonly onError?: ((error: ServiceError) => void) | undefined;
}

/**
 * An emulated guest: the driver side of virtio-rpmsg with services behind its endpoints. It runs in the process of a
 * bridge on heap memory, or behind a vhost-user socket, at one place at a time.
 */
export class EmulatedGuest {
  /** What it does wrong on purpose. */
  readonly faults: Faults;
  readonly #faults = noFaults();
  readonly #services: ReadonlyMap<string, NamedService>;
  readonly #otherService: (name: string) => ServiceFactory | undefined;
  readonly #onError: ((error: ServiceError) => void) | undefined;
  #profile: Profile;
  #layout: GuestLayout;
  #control: GuestControl | undefined;
  #bus: GuestBus | undefined;
  /** The last of reboot, pause and resume: they come one after another. */
  #last = Promise.resolve();

  /** @throws RangeError a service's name or address cannot be had */
  constructor(options: EmulatedGuestOptions = {}) {
    this.#profile = profiles[options.profile ?? "linux"];
    this.#layout = layoutOf(this.#profile);
    this.#services = namedServices(options.services ?? demoServices);
    this.#otherService = options.otherService ?? ((name) => (name.endsWith("tty") ? tty : echo));
    this.#onError = options.onError;
    this.faults = new Faults(this.#faults, () => this.#bus?.faultsChanged());
  }

  get profile(): Profile {
    return this.#profile;
  }

  /** Whether something holds it: a bridge in this process, or a socket. */
  get inUse(): boolean {
    return this.#control !== undefined;
  }

  /**
   * Resets it, as a virtual machine is reset, and boots it again: with the services that it was made with.
   * @returns done when it runs again
   * @throws Error it is not attached; SystemError, FrontendError: the socket's connection has ended
   */
  reboot(): Promise<void> {
    return this.#operate("reboot");
  }

  /** Stops the device as a paused virtual machine does; nothing is lost. @throws as `reboot` */
  pause(): Promise<void> {
    return this.#operate("pause");
  }

  /** @throws as `reboot` */
  resume(): Promise<void> {
    return this.#operate("resume");
  }

  /**
   * Adds a service to the running guest, until its next boot, and announces it.
   * @param address without one the lowest that is free
   * @throws Error it does not run; RangeError the name or the address cannot be had; what the service throws
   */
  announce(name: string, service: ServiceFactory, address?: number): void {
    const options: ServiceOptions = { service, ns: "up" };
    if (address !== undefined) options.address = address;
    this.#running.add(nameService(name, options));
  }

  /**
   * Takes a service away from the running guest, until its next boot.
   * @returns whether there was one of that name
   * @throws Error it does not run
   */
  withdraw(name: string): boolean {
    return this.#running.withdraw(Buffer.from(name).toString("latin1"));
  }

  /**
   * Attaches it to a bridge that listens on a vhost-user socket; again and again whenever the connection ends.
   * @throws Error it is in use already, or this system has no vhost-user (it takes Linux on x86-64 or arm64)
   */
  connect(path: string, events?: SocketEvents): GuestConnection {
    return new GuestSocket(this, "connect", path, events);
  }

  /**
   * Waits on a vhost-user socket for a bridge that connects; one at a time.
   * @throws as `connect`; SystemError socket: the path cannot be listened on
   */
  listen(path: string, events?: SocketEvents): GuestConnection {
    return new GuestSocket(this, "listen", path, events);
  }

  // ---- for what runs it ----

  get layout(): GuestLayout {
    return this.#layout;
  }

  get bus(): GuestBus | undefined {
    return this.#bus;
  }

  /** Makes it behave like another implementation. @throws Error it is in use already */
  setProfile(name: ProfileName): void {
    if (this.inUse) throw new Error("the guest is in use already");
    this.#profile = profiles[name];
    this.#layout = layoutOf(this.#profile);
  }

  /** Takes hold of the guest. @throws Error it is in use already */
  use(control: GuestControl): void {
    if (this.#control !== undefined)
      throw new Error("the guest is in use already: it runs at one place at a time");
    this.#control = control;
  }

  /** Lets go of it; it stops at once. */
  release(control: GuestControl): void {
    if (this.#control !== control) return;
    this.halt();
    this.#control = undefined;
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
      faults: this.#faults,
      serviceFor: (name) => this.#serviceFor(name),
      report: (error) => this.#report(error),
      kick: link.kick,
    });
  }

  /** The device runs: announces the services. */
  run(): void {
    this.#bus?.start(this.#services.values());
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

  get #running(): GuestBus {
    if (this.#bus === undefined) throw new Error("the guest does not run");
    return this.#bus;
  }

  #operate(operation: "reboot" | "pause" | "resume"): Promise<void> {
    const result = this.#last.then(() => {
      if (this.#control === undefined) throw new Error("the guest is not attached");
      return this.#control[operation]();
    });
    this.#last = result.catch(() => {});
    return result;
  }

  /** @param name one character a byte */
  #serviceFor(name: string): ServiceFactory | undefined {
    const known = this.#services.get(name);
    if (known === undefined) return this.#otherService(Buffer.from(name, "latin1").toString());
    return known.ns === "down" || known.ns === "both" ? known.factory : undefined;
  }

  #report(error: ServiceError): void {
    const tell = this.#onError ?? this.#control?.onError ?? ((each) => process.emitWarning(each));
    try {
      tell(error);
    } catch (thrown) {
      // Not into the rings: whoever throws here wants the process to know.
      queueMicrotask(() => {
        throw thrown;
      });
    }
  }
}
