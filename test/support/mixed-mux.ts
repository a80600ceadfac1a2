import { WebSocket } from "ws";
import type { MuxClientFrame } from "../../schemas/index.ts";
import { MUX_MESSAGE_COST, MuxServerFrame } from "../../schemas/index.ts";
import { muxMessage, PEER, parseMessage } from "../server/mux-client.ts";
import type { LinkOptions } from "./mixed-links.ts";
import { Link } from "./mixed-links.ts";

/** A connection of `rpmsg.v1.mux`, and its subscriptions. */
export class MuxLinks {
  readonly socket: WebSocket;
  readonly #links = new Map<number, MuxLink>();
  #ready: Promise<void>;
  #next = 1;

  constructor(socketPath: string) {
    this.socket = new WebSocket(`ws+unix:${socketPath}:/ws/v1`, ["rpmsg.v1.mux"], {
      perMessageDeflate: false,
    });
    this.#ready = new Promise((resolve) => this.socket.once("open", () => resolve()));
    this.socket.on("message", (data: Buffer, isBinary) => {
      if (isBinary) {
        const { sub, seq, bytes } = parseMessage(data);
        this.#links.get(sub)?.message(bytes, seq);
        return;
      }
      const frame = MuxServerFrame.parse(JSON.parse(data.toString()));
      if ("sub" in frame && frame.sub !== undefined) this.#links.get(frame.sub)?.frame(frame);
    });
    this.socket.on("error", () => {});
    this.socket.on("close", (code) => {
      for (const link of this.#links.values()) link.closed(`${code}`);
    });
  }

  get isOver(): boolean {
    return this.socket.readyState > WebSocket.OPEN;
  }

  /** @param credit what may come at first; undefined for anything */
  async subscribe(options: LinkOptions, credit?: number): Promise<MuxLink> {
    await this.#ready;
    const sub = this.#next++;
    const link = new MuxLink(options, this, sub);
    this.#links.set(sub, link);
    options.account.connections++;
    this.control({ type: "subscribe", sub, path: options.path, ...(credit !== undefined && { credit }) });
    return link;
  }

  control(frame: MuxClientFrame): void {
    this.socket.send(JSON.stringify(frame));
  }
}

/** A subscription. It outlives resets, and keeps to its credit. */
export class MuxLink extends Link {
  readonly #links: MuxLinks;
  readonly #sub: number;
  #credit = 0;

  constructor(options: LinkOptions, links: MuxLinks, sub: number) {
    super(options);
    options.sender.isAnswered = true;
    this.#links = links;
    this.#sub = sub;
  }

  override grant(bytes: number): void {
    if (!this.isOver) this.#links.control({ type: "credit", sub: this.#sub, bytes });
  }

  pause(): void {
    this.#links.socket.pause();
  }

  resume(): void {
    this.#links.socket.resume();
  }

  leave(): void {
    this.#links.control({ type: "unsubscribe", sub: this.#sub });
  }

  vanish(): void {
    this.#links.socket.terminate();
  }

  message(bytes: Buffer, seq: number): void {
    this.options.inbox.message(bytes, seq);
    this.heard();
  }

  closed(reason: string): void {
    this.over(reason);
  }

  frame(frame: Exclude<MuxServerFrame, { type: "hello" | "pong" }>): void {
    const { inbox } = this.options;
    if (frame.type === "subscribed") {
      inbox.begin(frame.local, frame.generation);
      this.#credit = frame.credit;
      this.isUp = true;
    } else if (frame.type === "state") {
      if (frame.state === "down") this.isUp = false;
    } else if (frame.type === "credit") {
      this.#credit += frame.bytes;
    } else if (frame.type === "dropped") {
      inbox.dropped(frame.count);
    } else if (frame.type === "sent") {
      this.result(frame.id - 1, "sent");
    } else if (frame.type === "unsubscribed") {
      this.over(frame.code ?? "unsubscribed");
    } else if (frame.id !== undefined) {
      // Refused while it is down, or taken and given up at a reset.
      const isDown = frame.code === "guest-gone" && frame.message.includes("is down");
      this.result(frame.id - 1, isDown ? "down" : frame.code);
    } else {
      // Nobody but `subscribe` is without a number here.
      this.over(frame.code);
    }
    this.heard();
  }

  protected override mayCarry(length: number): boolean {
    return this.#credit >= MUX_MESSAGE_COST + length;
  }

  protected carry(payload: Buffer, number: number): void {
    this.#credit -= MUX_MESSAGE_COST + payload.length;
    // 0 stands for none.
    this.#links.socket.send(muxMessage(this.#sub, PEER, number + 1, payload));
  }
}
