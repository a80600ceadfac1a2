import type { MemoryWindow, RpmsgDevice } from "../rpmsg/index.ts";
import { DeviceQueue, GuestMemory, heapRegion, REQUEST_QUEUE, RESPONSE_QUEUE } from "../rpmsg/index.ts";
import type { EmulatedGuest, GuestControl } from "./emulated-guest.ts";
import { MEMORY_BASE } from "./layout.ts";

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
 * @param onError told of what services do wrong, unless the guest has its own way to tell
 * @throws Error the guest is in use already
 */
export function attachInProcess(
  guest: EmulatedGuest,
  device: RpmsgDevice,
  onError?: GuestControl["onError"],
): InProcessLink {
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
  let closed = false;

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
    // Before anything else has its turn: whoever attached the guest and looks then finds its services announced.
    const current = epoch;
    queueMicrotask(() => {
      if (current === epoch && !paused) device.kicked(REQUEST_QUEUE);
    });
  };
  const link = {
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
      if (closed) return;
      closed = true;
      epoch++;
      guest.release(link);
      device.reset();
    },
    onError,
  };
  guest.use(link);
  boot();
  return link;
}
