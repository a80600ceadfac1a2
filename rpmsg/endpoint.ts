import type { AddressTable } from "./address-table.ts";
import type { Target } from "./send-queue.ts";
import { ADDRESS_ANY, NAME_SERVICE_ADDRESS } from "./wire/header.ts";

/**
 * Takes a message of the guest: `length` bytes at `offset`. `bytes` is guest memory or a scratch buffer and valid
 * during the call only; the guest may change it meanwhile.
 */
export type MessageHandler = (src: number, bytes: Uint8Array, offset: number, length: number) => void;

/** A local address with a receive callback. */
export class Endpoint implements Target {
  readonly address: number;
  /** Source of the guest's most recent message: where messages to "the peer" go. */
  peer: number | undefined;
  closed = false;
  readonly #table: AddressTable<Endpoint>;
  readonly #onMessage: MessageHandler;
  readonly #onPeer: (endpoint: Endpoint, first: boolean) => void;

  /**
   * @param address undefined for a dynamic one
   * @param onPeer called when the peer's address was learned (`first`) or changed
   * @throws RpmsgError address-invalid, address-in-use, address-space-full
   */
  constructor(
    table: AddressTable<Endpoint>,
    address: number | undefined,
    onMessage: MessageHandler,
    onPeer: (endpoint: Endpoint, first: boolean) => void,
  ) {
    this.#table = table;
    this.#onMessage = onMessage;
    this.#onPeer = onPeer;
    this.address = address === undefined ? table.allocate(this) : table.claim(address, this);
  }

  /** A message arrived for this address. */
  receive(src: number, bytes: Uint8Array, offset: number, length: number): void {
    // Nobody answers name service.
    if (src !== this.peer && src !== ADDRESS_ANY && src !== NAME_SERVICE_ADDRESS) this.learn(src);
    this.#onMessage(src, bytes, offset, length);
  }

  /** The peer's address is known. */
  learn(peer: number): void {
    const first = this.peer === undefined;
    this.peer = peer;
    this.#onPeer(this, first);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#table.release(this.address);
  }
}
