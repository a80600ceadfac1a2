import { addressKey } from "../access/address.ts";
import type { JsonChannel } from "./json.ts";

/**
 * Sessions whose clients are away. There is room for so many; beyond that the one ends that came last of whoever has
 * most of them, so that nobody who opens and breaks many takes the room of others, nor of what it had itself before.
 */
export class WaitingSessions implements Iterable<JsonChannel> {
  /** The token and the network address of the client that a session had last. */
  readonly #owners = new WeakMap<JsonChannel, string>();
  readonly #byOwner = new Map<string, Set<JsonChannel>>();
  size = 0;

  /** A client takes a session, which waits no more; perhaps from another address than before. */
  taken(session: JsonChannel, address: string): void {
    this.delete(session);
    this.#owners.set(session, `${addressKey(address)} ${session.owner ?? ""}`);
  }

  add(session: JsonChannel): void {
    // One that another process has left may not have had a client here.
    const owner = this.#owners.get(session) ?? ` ${session.owner ?? ""}`;
    this.#owners.set(session, owner);
    const sessions = this.#byOwner.get(owner) ?? new Set();
    this.#byOwner.set(owner, sessions.add(session));
    this.size++;
  }

  delete(session: JsonChannel): void {
    const owner = this.#owners.get(session) ?? "";
    const sessions = this.#byOwner.get(owner);
    if (sessions?.delete(session) !== true) return;
    this.size--;
    if (sessions.size === 0) this.#byOwner.delete(owner);
  }

  /** The one to end where there is one too many. */
  get surplus(): JsonChannel | undefined {
    let most = new Set<JsonChannel>();
    for (const sessions of this.#byOwner.values()) if (sessions.size >= most.size) most = sessions;
    return [...most].at(-1);
  }

  *[Symbol.iterator](): Iterator<JsonChannel> {
    for (const sessions of this.#byOwner.values()) yield* sessions;
  }
}
