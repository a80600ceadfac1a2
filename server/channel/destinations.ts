import type { ChannelPort } from "../endpoint-port.ts";

/** The address of name service: no client may send to it. */
const NAME_SERVICE = 53;
/** Sources of messages that are remembered; beyond that the least recent one is forgotten. */
const MOST = 1024;

/** Where a client may send: to the channel's peer, and to whoever has sent to the channel. */
export class Destinations {
  readonly #anywhere: boolean;
  readonly #seen = new Set<number>();
  #latest: number | undefined;

  /** @param anywhere the client may send to any address but that of name service */
  constructor(anywhere: boolean) {
    this.#anywhere = anywhere;
  }

  /** A message came from this address. */
  saw(src: number): void {
    if (src === this.#latest) return;
    this.#latest = src;
    this.#seen.delete(src);
    this.#seen.add(src);
    if (this.#seen.size <= MOST) return;
    const [oldest] = this.#seen;
    if (oldest !== undefined) this.#seen.delete(oldest);
  }

  /** Least recent first. */
  get seen(): number[] {
    return [...this.#seen];
  }

  allows<Ticket>(dst: number, port: ChannelPort<Ticket>): boolean {
    return dst !== NAME_SERVICE && (this.#anywhere || dst === port.peer || this.#seen.has(dst));
  }
}
