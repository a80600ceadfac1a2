import type { GuestConnection, Service, ServiceContext, ServiceOptions } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";
import type { ReadMessage } from "../capture/message.ts";
import { messagesOfGuest } from "../capture/message.ts";
import { PcapngReader } from "../capture/pcapng-reader.ts";
import { LONGEST_TIMER } from "../longest-timer.ts";

export interface ReplayGuestOptions {
  /** Without the times of the capture: as fast as the bridge takes them. */
  readonly fast: boolean;
  /** An endpoint has sent all that it has. */
  readonly onPlayed?: (endpoint: string, messages: number) => void;
}

/** What the guest of a capture sent from one endpoint. */
interface Track {
  readonly name: string;
  readonly origin: "guest" | "host";
  /** Of the endpoint in the guest. */
  readonly address: number;
  /** When it begins, in nanoseconds: with the first message of a client, or with its own first one. */
  readonly start: bigint;
  readonly messages: { readonly time: bigint; readonly payload: Buffer }[];
}

/**
 * An emulated guest that sends what the guest of a capture sent. Endpoints that the guest announced are announced again,
 * and each begins with the first message of a client, as it did in the capture, and sends to whoever sent last; one that
 * the host announces begins when it is announced.
 */
function replayGuest(messages: readonly ReadMessage[], options: ReplayGuestOptions): EmulatedGuest {
  const tracks = tracksOf(messages);
  // Names are the guest's: none of them means anything to an object.
  const services = Object.create(null) as Record<string, ServiceOptions>;
  for (const track of tracks) {
    services[track.name] = {
      service: (context) => new Player(context, track, options),
      ...(track.origin === "guest" ? { ns: "up", address: track.address } : { ns: "down" }),
    };
  }
  // Nothing else is there: what a capture has not is not made up.
  return new EmulatedGuest({ services, otherService: () => undefined });
}

/**
 * Runs one behind a vhost-user socket.
 * @throws RangeError it cannot have such endpoints; SystemError socket: the path cannot be listened on
 */
export function runReplayGuest(
  messages: readonly ReadMessage[],
  options: ReplayGuestOptions & {
    readonly socket: string;
    readonly mode: "connect" | "listen";
    readonly onAttached: () => void;
    readonly onError: (error: Error) => void;
  },
): GuestConnection {
  const { socket, mode, onAttached, onError } = options;
  return replayGuest(messages, options)[mode](socket, { onAttached, onError });
}

/** By endpoint; where one of each side has the name, of the one that the guest spoke from first. */
function tracksOf(messages: readonly ReadMessage[]): Track[] {
  const tracks = new Map<string, Track>();
  const asked = new Map<string, bigint>();
  for (const { endpoint, origin = "guest", toGuest, nameService, time, src, payload } of messages) {
    if (endpoint === undefined || nameService !== undefined) continue;
    if (toGuest) {
      if (!asked.has(endpoint)) asked.set(endpoint, time);
      continue;
    }
    const known = tracks.get(endpoint);
    // What tells the host where the guest is, the emulated guest says by itself.
    if (origin === "host" && known === undefined && payload.length === 0) continue;
    if (known !== undefined) {
      if (known.origin === origin) known.messages.push({ time, payload });
    } else {
      const start = asked.get(endpoint) ?? time;
      tracks.set(endpoint, { name: endpoint, origin, address: src, start, messages: [{ time, payload }] });
    }
  }
  return [...tracks.values()];
}

/** Sends a track, once, in order and without a loss: what finds no buffer waits for one. */
class Player implements Service {
  readonly #context: ServiceContext;
  readonly #track: Track;
  readonly #options: ReplayGuestOptions;
  #to: number | undefined;
  #started: number | undefined;
  #next = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(context: ServiceContext, track: Track, options: ReplayGuestOptions) {
    this.#context = context;
    this.#track = track;
    this.#options = options;
    // Not before the endpoint is there.
    if (track.origin === "host") this.#timer = setTimeout(() => this.#begin(context.peer), 0);
  }

  onMessage(src: number): boolean {
    if (this.#track.origin === "guest") this.#begin(src);
    return true;
  }

  onWritable(): void {
    this.#play();
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #begin(to: number | undefined): void {
    this.#to = to;
    this.#started ??= performance.now();
    this.#play();
  }

  #play(): void {
    const to = this.#to;
    if (this.#started === undefined || to === undefined) return;
    clearTimeout(this.#timer);
    const { start, messages, name } = this.#track;
    for (; ; this.#next++) {
      const message = messages[this.#next];
      if (message === undefined) return;
      const wait = this.#started + Number(message.time - start) / 1e6 - performance.now();
      if (!this.#options.fast && wait > 0) {
        this.#timer = setTimeout(() => this.#play(), Math.min(wait, LONGEST_TIMER));
        return;
      }
      if (!this.#send(to, message.payload)) return;
      if (this.#next + 1 === messages.length) this.#options.onPlayed?.(name, messages.length);
    }
  }

  /** @returns false where there is no buffer */
  #send(to: number, payload: Buffer): boolean {
    const { mtu } = this.#context;
    if (payload.length <= mtu) return this.#context.send(to, payload);
    this.#context.report("failed", `a message of ${payload.length} bytes is left out: the most is ${mtu}`);
    return true;
  }
}

/**
 * The guest of a file.
 * @throws PcapngError it has none, or several
 */
export function guestOfCapture(file: Uint8Array): EmulatedGuest {
  const reader = new PcapngReader();
  const items = reader.read(file);
  reader.end();
  return replayGuest(messagesOfGuest(items), { fast: false });
}
