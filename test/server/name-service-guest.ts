import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { expect, onTestFinished } from "vitest";
import type { EmulatedGuestOptions, GuestLink } from "../../guest/emulated-guest.ts";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import { MEMORY_BASE } from "../../guest/layout.ts";
import type { Service, ServiceContext } from "../../guest/service.ts";
import { VhostUserGuest } from "../../guest/vhost-user-guest.ts";
import type { MemoryWindow, RingAddresses } from "../../rpmsg/index.ts";
import {
  createMemory,
  decodeNameService,
  GuestMemory,
  hasBit,
  mappedRegion,
  NAME_SERVICE_ADDRESS,
  Poller,
  RPMSG_F_NS,
  VhostUserFrontend,
} from "../../rpmsg/index.ts";
import { connectUnix } from "../../rpmsg/posix/unix-socket.ts";
import type { ConfigInput, Endpoint, NameServiceMode, Problem } from "../../schemas/index.ts";
import type { LogLine, RunningBridge } from "./support.ts";
import { testBridge, testDirectory } from "./support.ts";

/** Address of a service of the host. */
export const HOST = 1040;
/** An address of the guest that is agreed on. */
export const AGREED = 48;
/** Milliseconds for which a guest does nothing with what it gets: longer than any test. */
export const DEAF = 3_600_000;

/** What the list says of an endpoint. */
export type Row = readonly [
  name: string,
  origin: Endpoint["origin"],
  ns: NameServiceMode,
  address: number | null,
  peer: number | null,
  state: Endpoint["state"],
  path: string,
];

export type Declaration = NonNullable<NonNullable<ConfigInput["guests"]>[string]["endpoints"]>[number];

/** Waits until the list is as expected, in any order. */
export async function listed(
  running: RunningBridge,
  generation: number,
  expected: readonly Row[],
): Promise<void> {
  const byText = (a: unknown, b: unknown) => (String(a) < String(b) ? -1 : 1);
  const wanted = expected.toSorted(byText);
  const deadline = performance.now() + 15_000;
  for (;;) {
    const endpoints = await running.endpoints();
    const rows = endpoints
      .map(({ name, origin, ns, address, peer, state, path }) => [
        name,
        origin,
        ns,
        address,
        peer,
        state,
        path,
      ])
      .toSorted(byText);
    const generations = endpoints.map((each) => each.generation);
    if (isDeepStrictEqual(rows, wanted) && generations.every((each) => each === generation)) return;
    if (performance.now() < deadline) continue;
    expect(rows).toEqual(wanted);
    expect(generations).toEqual(wanted.map(() => generation));
  }
}

/** A service that answers with its address and what it got, and keeps the contexts of all that were made. */
export class Answering {
  readonly contexts: ServiceContext[] = [];

  readonly factory = (context: ServiceContext): Service => {
    this.contexts.push(context);
    return {
      onMessage: (src, bytes, offset, length) => {
        const text = Buffer.from(bytes).toString("utf8", offset, offset + length);
        return context.send(src, Buffer.from(`${context.address}: ${text}`));
      },
    };
  };
}

/** A bridge with a guest `vm` that waits, and the guest. */
export async function guestBridge(
  declarations: Declaration[],
  options: EmulatedGuestOptions,
  onLog?: (line: LogLine) => void,
) {
  const path = join(testDirectory(), "vm.sock");
  const guests = { vm: { kind: "vhost-user" as const, path, endpoints: declarations } };
  const running = await testBridge({ guests }, onLog);
  const guest = new WatchedGuest({ otherService: () => undefined, ...options });
  return { running, guest, path, attach: (): Promise<Attached> => attach(guest, path) };
}

/** A request to `/api/v1/guests/vm/endpoints`, with JSON in both directions. */
export async function call(
  running: RunningBridge,
  method: "POST" | "DELETE",
  path: string,
  body?: object,
): Promise<{ status: number; body: Partial<Endpoint & Problem> }> {
  const response = await fetch(`${running.url}/api/v1/guests/vm/endpoints${path}`, {
    method,
    ...(body !== undefined && {
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    }),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? {} : JSON.parse(text) };
}

/** A message as it lay in a buffer of the guest. */
export interface HeardMessage {
  readonly src: number;
  readonly dst: number;
  readonly text: string;
}

/** An emulated guest that writes down what the device puts into its buffers, whatever becomes of it. */
export class WatchedGuest extends EmulatedGuest {
  #nameService: string[] = [];
  #messages: HeardMessage[] = [];
  #window: MemoryWindow | undefined;
  #seen = 0;

  /**
   * Name-service messages since the last boot: `+name@address` for a create, `-name@address` for a destroy. What the
   * bridge says is told is there, though the guest may not have been called yet.
   */
  get nameService(): readonly string[] {
    this.#look();
    return this.#nameService;
  }

  /** All others since then. */
  get messages(): readonly HeardMessage[] {
    this.#look();
    return this.#messages;
  }

  override boot(link: GuestLink): void {
    super.boot(link);
    this.#window = link.window;
    this.#seen = 0;
    this.#nameService = [];
    this.#messages = [];
  }

  override halt(): void {
    // Its memory may be gone soon.
    this.#window = undefined;
    super.halt();
  }

  override called(): void {
    this.#look();
    super.called();
  }

  /** Reads what was used since the last look, before the guest works on it and gives the buffers back. */
  #look(): void {
    const window = this.#window;
    if (window === undefined) return;
    const { descriptors, used } = this.layout.receiveRing;
    const { u8 } = window;
    const view = new DataView(u8.buffer, u8.byteOffset, u8.byteLength);
    const size = this.profile.queueSize;
    for (
      const end = view.getUint16(used - MEMORY_BASE + 2, true);
      this.#seen !== end;
      this.#seen = (this.#seen + 1) & 0xffff
    ) {
      const head = view.getUint32(used - MEMORY_BASE + 4 + 8 * (this.#seen % size), true);
      const buffer = Number(view.getBigUint64(descriptors - MEMORY_BASE + 16 * head, true)) - MEMORY_BASE;
      const dst = view.getUint32(buffer + 4, true);
      const length = view.getUint16(buffer + 12, true);
      const bytes = Buffer.from(u8.subarray(buffer + 16, buffer + 16 + length));
      if (dst === NAME_SERVICE_ADDRESS) {
        const { created, name, address } = decodeNameService(bytes, 0, length) ?? {};
        this.#nameService.push(`${created === true ? "+" : "-"}${name}@${address}`);
      } else {
        this.#messages.push({ src: view.getUint32(buffer, true), dst, text: bytes.toString() });
      }
    }
  }
}

/** A guest's attachment to the socket of a bridge. */
export interface Attached {
  readonly vm: VhostUserGuest;
  /** The connection with the bridge is over. */
  readonly closed: Promise<void>;
}

/** Attaches a guest of this process to the bridge that listens there; it is gone at the end of the test. */
export async function attach(guest: EmulatedGuest, path: string): Promise<Attached> {
  const poller = new Poller();
  let gone: () => void = () => {};
  const closed = new Promise<void>((resolve) => {
    gone = resolve;
  });
  const vm = new VhostUserGuest(guest, connect(path), poller, gone);
  onTestFinished(() => {
    vm.close();
    poller.close();
  });
  await vm.attach();
  return { vm, closed };
}

/**
 * Attaches an emulated guest whose driver accepts other features.
 * @returns ends the connection
 */
export async function attachWithFeatures(
  path: string,
  features: bigint,
  options: EmulatedGuestOptions,
): Promise<{ guest: WatchedGuest; close: () => void }> {
  const guest = new WatchedGuest(options);
  const { layout, profile } = guest;
  const fd = createMemory("rpmsg-guest", layout.size);
  const region = mappedRegion(fd, 0, MEMORY_BASE, MEMORY_BASE, layout.size);
  const memory = new GuestMemory();
  memory.add(region);
  const vring = (addresses: RingAddresses) => ({ size: profile.queueSize, addresses });
  const poller = new Poller();
  const frontend = new VhostUserFrontend(
    connect(path),
    poller,
    {
      features,
      memory: [
        {
          guestAddress: MEMORY_BASE,
          userAddress: MEMORY_BASE,
          size: layout.size,
          fileOffset: 0,
          fd: region.fd,
        },
      ],
      vrings: [vring(layout.receiveRing), vring(layout.transmitRing)],
    },
    { onCall: () => guest.called(), onClose: () => guest.halt() },
  );
  const close = () => frontend.close();
  onTestFinished(() => {
    close();
    poller.close();
    memory.close();
  });
  await frontend.negotiate();
  const [window] = region.windows as [MemoryWindow];
  const kick = (queue: number) => frontend.kick(queue);
  const nameService = hasBit(frontend.features, RPMSG_F_NS);
  guest.boot({ memory, window, nameService, indirect: false, eventIndex: false, kick });
  await frontend.start();
  guest.run();
  return { guest, close };
}

function connect(path: string): number {
  const fd = connectUnix(path);
  if (fd < 0) throw new Error(`cannot connect to ${path}: ${fd}`);
  return fd;
}
