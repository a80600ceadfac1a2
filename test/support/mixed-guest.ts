import type { ProfileName, Service, ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";
import type { Random } from "./random.ts";
import type { Rest } from "./rest.ts";

/** What a message is for, either way. */
export const kind = { data: 0, stop: 1 } as const;
/** Sender, its count of messages, kind; to the guest. */
export const TO_GUEST = 9;
/** Boot, destination, the stream's count of messages, kind, and with `stop` how many came from the sender. */
export const FROM_GUEST = 17;

/** Messages to one address of the host, until the guest's next boot. */
interface Stream {
  dst: number;
  sent: number;
  /** Messages that it is time for. */
  due: number;
  /** Its sender has not said good-bye. */
  isWanted: boolean;
  /** The answer to the good-bye is yet to be sent: how many messages of the sender came. */
  stopping: number | undefined;
}

/** How a service of the guest sends to each listener: every few milliseconds up to so many messages of such lengths. */
export interface Rate {
  readonly burst: number;
  readonly shortest: number;
}

/** Milliseconds between two bursts. */
const PERIOD = 4;

/** What a service saw, over all boots. */
export interface Seen {
  received: number;
  sent: number;
}

/**
 * The guest of a mixed run: services that keep the numbers of all messages that they get, and send numbered ones to
 * whoever has spoken to them.
 */
export class MixedGuest {
  readonly guest: EmulatedGuest;
  boots = 1;
  /** Takes no messages: what comes waits, in its buffers and in the bridge. */
  dozing = false;
  /** Sends no more messages but the last ones. */
  quiet = false;
  readonly seen = new Map<string, Seen>();
  /** By sender: the numbers of its messages as they came. */
  readonly heard = new Map<number, number[]>();
  readonly problems: string[] = [];
  /** Services that it announces at every boot. */
  readonly announcements: number;
  /** Of the services that run: each sends until nothing is due, or no buffer is left. */
  readonly #pumps: (() => boolean)[] = [];
  readonly #random: Random;
  readonly #rest: Rest;

  /** @param announced services that the guest announces, and how they send; @param awaited those of the host */
  constructor(
    profile: ProfileName,
    announced: Readonly<Record<string, Rate>>,
    awaited: Readonly<Record<string, Rate>>,
    random: Random,
    rest: Rest,
  ) {
    this.#random = random;
    this.#rest = rest;
    this.announcements = Object.keys(announced).length;
    const service = (rate: Rate) => (context: ServiceContext) => this.#service(context, rate);
    const entries = [
      ...Object.entries(announced).map(
        ([name, rate]) => [name, { service: service(rate), ns: "up" }] as const,
      ),
      ...Object.entries(awaited).map(
        ([name, rate]) => [name, { service: service(rate), ns: "down" }] as const,
      ),
    ];
    for (const [name] of entries) this.seen.set(name, { received: 0, sent: 0 });
    this.guest = new EmulatedGuest({
      profile,
      services: Object.fromEntries(entries),
      onError: (error) => this.problems.push(`guest: ${error.message}`),
    });
  }

  async reboot(): Promise<void> {
    this.boots++;
    this.dozing = false;
    await this.guest.reboot();
  }

  doze(): void {
    this.dozing = true;
  }

  wake(): void {
    this.dozing = false;
    this.guest.called();
  }

  #service(context: ServiceContext, { burst, shortest }: Rate): Service {
    const boot = this.boots;
    const seen = this.seen.get(context.name) as Seen;
    const streams = new Map<number, Stream>();
    const message = Buffer.alloc(context.mtu);
    const send = (stream: Stream, what: number, length: number): boolean => {
      message.fill(stream.sent);
      message.writeUInt32LE(boot, 0);
      message.writeUInt32LE(stream.dst, 4);
      message.writeUInt32LE(stream.sent, 8);
      message.writeUInt8(what, 12);
      message.writeUInt32LE(stream.stopping ?? 0, 13);
      if (!context.send(stream.dst, message, 0, length)) return false;
      stream.sent++;
      seen.sent++;
      return true;
    };
    const pump = (): boolean => {
      for (const stream of [...streams.values()]) {
        // Whoever finds no buffer is not the first the next time, either.
        streams.delete(stream.dst);
        streams.set(stream.dst, stream);
        if (this.quiet || this.#rest.isOn || !stream.isWanted) stream.due = 0;
        while (stream.due > 0) {
          const length = shortest + this.#random.below(context.mtu - shortest + 1);
          if (!send(stream, kind.data, length)) return false;
          stream.due--;
        }
        if (stream.stopping === undefined) continue;
        if (!send(stream, kind.stop, FROM_GUEST)) return false;
        stream.stopping = undefined;
      }
      return true;
    };
    this.#pumps.push(pump);
    const timer = setInterval(() => {
      for (const stream of streams.values()) {
        stream.due = Math.min(4 * burst, stream.due + this.#random.below(burst + 1));
      }
      this.#pump();
    }, PERIOD).unref();
    return {
      onMessage: (src, bytes, offset) => {
        if (this.dozing) return false;
        const view = Buffer.from(bytes.buffer, bytes.byteOffset + offset, TO_GUEST);
        const sender = view.readUInt32LE(0);
        const heard = this.heard.get(sender) ?? [];
        this.heard.set(sender, heard);
        heard.push(view.readUInt32LE(4));
        seen.received++;
        let stream = streams.get(src);
        if (stream === undefined) {
          stream = { dst: src, sent: 0, due: 0, isWanted: true, stopping: undefined };
          streams.set(src, stream);
        }
        stream.isWanted = view[8] !== kind.stop;
        stream.stopping = stream.isWanted ? undefined : heard.length;
        return true;
      },
      onWritable: () => this.#pump(),
      close: () => {
        clearInterval(timer);
        this.#pumps.splice(this.#pumps.indexOf(pump), 1);
      },
    };
  }

  /** All services send what is due, in turn where buffers are few: none has them all on a busy machine. */
  #pump(): void {
    for (let i = this.#pumps.length; i > 0; i--) {
      const [pump] = this.#pumps.splice(0, 1);
      if (pump === undefined) return;
      this.#pumps.push(pump);
      if (!pump()) return;
    }
  }
}
