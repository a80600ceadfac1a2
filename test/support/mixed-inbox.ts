import { FROM_GUEST, kind } from "./mixed-guest.ts";

/** What all clients of an endpoint got and were told. */
export class Account {
  received = 0;
  /** By `dropped` frames. */
  told = 0;
  /** Messages with an id that were reported: sent, refused at once or given up, by code. */
  readonly results = new Map<string, number>();
  /** Of those that were sent, how many were reported as perhaps unread. */
  unconfirmed = 0;
  connections = 0;
  /** How connections and subscriptions ended. */
  readonly ends = new Map<string, number>();
}

export function count(map: Map<string, number>, key: string): void {
  map.set(key, (map.get(key) ?? 0) + 1);
}

/** The messages of one client, each with its number, and what became of them. */
export class Sender {
  readonly number: number;
  readonly endpoint: string;
  /** Messages so far. */
  sent = 0;
  /** By message: `sent`, `unread` when that was taken back, or the code of its error. */
  readonly results = new Map<number, string>();
  /** Its messages have ids, and each of them a result. */
  isAnswered = false;
  /** Its connection ended before all results could come. */
  endedEarly = false;

  constructor(number: number, endpoint: string) {
    this.number = number;
    this.endpoint = endpoint;
  }
}

/** Checks what one client gets from one boot of the guest: whole, in order, its own. */
export class Inbox {
  readonly #label: string;
  readonly #account: Account;
  readonly #problems: string[];
  /** Messages may be missing without a word. */
  readonly #lossy: boolean;
  #local: number | undefined;
  #boot: number | undefined;
  #last: number | undefined;
  #lastSeq = 0;
  #gap = 0;
  /** How far the channel's count is behind the stream's. */
  #shift: number | undefined;
  /** Channels so far. */
  begins = 0;
  /** The guest has said its last word to this client: how many messages had come. */
  stopped: number | undefined;

  constructor(label: string, account: Account, problems: string[], lossy: boolean) {
    this.#label = label;
    this.#account = account;
    this.#problems = problems;
    this.#lossy = lossy;
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Another channel, or the same in another generation. */
  begin(local?: number, boot?: number): void {
    this.begins++;
    this.#local = local;
    this.#boot = boot;
    this.#last = undefined;
    this.#lastSeq = 0;
    this.#gap = 0;
    this.#shift = undefined;
    this.stopped = undefined;
  }

  /** @param seq the channel's count, where the protocol has one */
  message(bytes: Buffer, seq?: number): void {
    this.#account.received++;
    if (bytes.length === 0) {
      // With it the guest introduces itself to a service of the host.
      this.#lastSeq = seq ?? 0;
      this.#gap = 0;
      return;
    }
    const [boot, dst, number] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4), bytes.readUInt32LE(8)];
    if (bytes.length < FROM_GUEST) this.#problem(`a message of ${bytes.length} bytes`);
    if (bytes.length > FROM_GUEST && bytes.at(-1) !== (number & 0xff))
      this.#problem("bytes of another message");
    this.#boot ??= boot;
    this.#local ??= dst;
    if (boot !== this.#boot) this.#problem(`a message of boot ${boot} in ${this.#boot}`);
    if (dst !== this.#local) this.#problem(`a message to ${dst} at ${this.#local}`);
    if (seq === undefined) this.#plain(number);
    else this.#numbered(number, seq);
    this.#last = number;
    if (bytes[12] === kind.stop) this.stopped = bytes.readUInt32LE(13);
  }

  /** So many were dropped, says the bridge. */
  dropped(messages: number): void {
    this.#account.told += messages;
    this.#gap += messages;
  }

  #plain(number: number): void {
    const last = this.#last ?? number - 1;
    const fine = this.#lossy ? number > last : number === last + 1;
    if (!fine) this.#problem(`${number} after ${last}`);
  }

  #numbered(number: number, seq: number): void {
    const expected = this.#lastSeq + this.#gap + 1;
    if (seq !== expected) this.#problem(`seq ${seq} after ${this.#lastSeq} and ${this.#gap} dropped`);
    this.#shift ??= number - seq;
    if (number - seq !== this.#shift)
      this.#problem(`message ${number} as seq ${seq}, ${this.#shift} apart before`);
    this.#lastSeq = seq;
    this.#gap = 0;
  }

  #problem(what: string): void {
    this.#problems.push(`${this.#label}: ${what}`);
  }
}
