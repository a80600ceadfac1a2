import type { Refusal } from "../access/permit.ts";
import type { ChannelPort, ChannelSnapshot, DropCause, EndpointPort } from "../endpoint-port.ts";

/** The way to an endpoint of a client that may not send. Those that may pay nothing for it. */
export class UnwritablePort<Ticket> implements ChannelPort<Ticket> {
  readonly #port: ChannelPort<Ticket>;
  readonly #refusal: Refusal;

  constructor(port: ChannelPort<Ticket>, refusal: Refusal) {
    this.#port = port;
    this.#refusal = refusal;
  }

  get endpoint(): EndpointPort {
    return this.#port.endpoint;
  }

  get local(): number {
    return this.#port.local;
  }

  get peer(): number | undefined {
    return this.#port.peer;
  }

  get mtu(): number {
    return this.#port.mtu;
  }

  get pendingBytes(): number {
    return this.#port.pendingBytes;
  }

  send(): Refusal {
    return this.#refusal;
  }

  hold(): void {
    this.#port.hold();
  }

  release(): void {
    this.#port.release();
  }

  dropped(count: number, cause: DropCause): void {
    this.#port.dropped(count, cause);
  }

  snapshot(): ChannelSnapshot<Ticket> {
    return this.#port.snapshot();
  }

  close(): void {
    this.#port.close();
  }

  abort(): void {
    this.#port.abort();
  }
}
