import { unlinkSync } from "node:fs";
import {
  accept,
  closeFd,
  errnoName,
  listenUnix,
  Poller,
  RecordSocket,
  SystemError,
} from "../../rpmsg/index.ts";
import type { Bridge } from "../bridge.ts";
import { mapLink } from "../guests/vhost-user-snapshot.ts";
import type { Log } from "../log.ts";
import type { HttpDoor } from "./http-door.ts";
import type { Message, State } from "./messages.ts";
import { decode, encode, HAND_OVER_VERSION, monotonic } from "./messages.ts";

/** Of the time of a hand-over, what clients get to say good-bye. */
const CLIENTS_SHARE = 0.4;
/** Milliseconds that a connection may take to say what it wants. */
const HELLO_TIMEOUT = 5000;
/** What a successor says is short, and brings nothing. */
const BOUNDS = { payload: 4096, descriptors: 0 };
/** Connections that have not said yet what they want. */
const MOST_UNKNOWN = 8;
/** What a hand-over that fails goes on with. */
const RETRY_LISTEN = 1000;

/** What the running bridge has to hand over. */
export interface Estate {
  readonly bridge: Bridge;
  readonly door: HttpDoor;
  readonly log: Log;
  /** `handover` of the configuration. */
  readonly path: string;
  /** Everything is the successor's: this process is to end, touching nothing. */
  readonly onGone: () => void;
}

/**
 * Offers the running bridge to a successor, on a socket that only this user can connect to. One hand-over runs at a
 * time. Until `yours` is sent everything is ours, and whatever goes wrong we go on; from then on nothing is.
 */
export class Predecessor {
  readonly #estate: Estate;
  readonly #poller = new Poller({ onError: (error) => this.#estate.bridge.report(error) });
  #listener: number;
  #running: HandOver | undefined;
  #finished: Promise<void> = Promise.resolve();
  #unknown = 0;
  #closed = false;

  /** @throws SystemError socket: the path cannot be listened on */
  constructor(estate: Estate) {
    this.#estate = estate;
    const listener = listenUnix(estate.path, 0o600);
    if (listener < 0) {
      this.#poller.close();
      throw new SystemError("socket", `cannot listen on ${estate.path}: ${errnoName(listener)}`);
    }
    this.#listener = listener;
    this.#poller.add(listener, () => this.#accept());
  }

  /** Offers it no more; a hand-over that runs fails. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#stopListening();
    this.#running?.fail("the bridge is stopping");
    await this.#finished;
    this.#poller.close();
  }

  #stopListening(): void {
    if (this.#listener < 0) return;
    this.#poller.remove(this.#listener);
    closeFd(this.#listener);
    this.#listener = -1;
    try {
      unlinkSync(this.#estate.path);
    } catch {
      // Somebody has taken it away already.
    }
  }

  #accept(): void {
    for (let fd = accept(this.#listener); fd >= 0; fd = accept(this.#listener)) this.#serve(fd);
  }

  #serve(fd: number): void {
    if (this.#unknown >= MOST_UNKNOWN) {
      closeFd(fd);
      return;
    }
    this.#unknown++;
    let handOver: HandOver | undefined;
    let timer: NodeJS.Timeout | undefined;
    const refuse = (reason: string): void => {
      this.#estate.log.write("hand-over-refused", { reason });
      socket.send(encode({ type: "refused", reason }));
      socket.end();
    };
    const known = (): void => {
      if (timer === undefined) return;
      clearTimeout(timer);
      timer = undefined;
      this.#unknown--;
    };
    const onRecord = (payload: Uint8Array): void => {
      const message = decode(payload);
      if (handOver !== undefined) {
        handOver.receive(message);
        return;
      }
      known();
      const reason = this.#refusal(message);
      if (reason !== undefined) {
        refuse(reason);
        return;
      }
      handOver = new HandOver(this.#estate, socket, () => this.#stopListening());
      this.#running = handOver;
      this.#finished = handOver.run().then((done) => {
        this.#running = undefined;
        if (done) this.#estate.onGone();
        else if (this.#listener < 0 && !this.#closed) this.#listenAgain();
      });
    };
    const onClose = (error: Error | undefined): void => {
      known();
      handOver?.closed(error);
    };
    const socket = new RecordSocket(fd, this.#poller, { onRecord, onClose }, BOUNDS);
    timer = setTimeout(() => socket.close(), HELLO_TIMEOUT).unref();
  }

  #refusal(message: Message): string | undefined {
    if (message.type !== "hello" || message.protocol !== "rpmsg-bridge-hand-over") {
      return "what connected is no successor";
    }
    if (message.version !== HAND_OVER_VERSION) {
      return `the successor speaks version ${message.version} of the hand-over, this bridge version ${HAND_OVER_VERSION}`;
    }
    if (this.#running !== undefined) return "another hand-over is running";
    if (!this.#estate.bridge.ready) return "the bridge is starting or stopping";
    return undefined;
  }

  #listenAgain(): void {
    if (this.#closed) return;
    const listener = listenUnix(this.#estate.path, 0o600);
    if (listener < 0) {
      setTimeout(() => this.#listenAgain(), RETRY_LISTEN).unref();
      return;
    }
    this.#listener = listener;
    this.#poller.add(listener, () => this.#accept());
  }
}

/** One hand-over, from the successor's hello to its end. */
class HandOver {
  readonly #estate: Estate;
  readonly #socket: RecordSocket;
  readonly #commit: () => void;
  /** Why it cannot go on. */
  #failure: string | undefined;
  #ready = false;
  #committed = false;
  #wake: () => void = () => {};
  /** Settles when the connection is closed. */
  readonly #over: Promise<void>;
  #isOver: () => void = () => {};

  /** @param commit called when everything is about to be the successor's */
  constructor(estate: Estate, socket: RecordSocket, commit: () => void) {
    this.#estate = estate;
    this.#socket = socket;
    this.#commit = commit;
    this.#over = new Promise((resolve) => {
      this.#isOver = resolve;
    });
  }

  receive(message: Message): void {
    if (message.type !== "ready") this.fail(`the successor said "${message.type}"`);
    this.#ready = true;
    this.#wake();
  }

  /** The connection is closed. */
  closed(error: Error | undefined): void {
    // By us, in the end, it is no failure.
    if (error !== undefined || !this.#committed) this.fail("the successor has gone");
    this.#isOver();
  }

  fail(reason: string): void {
    this.#failure ??= reason;
    this.#wake();
  }

  /** @returns whether everything is the successor's */
  async run(): Promise<boolean> {
    const { bridge, door, log } = this.#estate;
    const { handoverTimeout } = bridge.limits;
    const started = monotonic();
    const deadline = started + handoverTimeout;
    log.write("hand-over-begun", {});
    const timer = setTimeout(() => {
      bridge.counts.limits.add("handoverTimeout");
      this.fail(`it took longer than ${handoverTimeout} ms`);
    }, handoverTimeout);
    try {
      const listening = door.close();
      await bridge.suspend(handoverTimeout * CLIENTS_SHARE);
      await door.idle(Math.max(0, started + handoverTimeout * CLIENTS_SHARE - monotonic()));
      if (this.#failure === undefined) {
        bridge.pause();
        this.#sendState(listening, deadline);
        await this.#answered();
      }
    } catch (error) {
      if (!(error instanceof SystemError)) bridge.report(error);
      this.fail(error instanceof Error ? error.message : String(error));
    }
    clearTimeout(timer);
    if (this.#failure === undefined) {
      // The path is free before the successor looks at it.
      this.#commit();
      this.#committed = true;
      this.#socket.send(encode({ type: "yours" }));
      this.#socket.end();
    }
    // A successor that vanished at the very last moment has not taken the message.
    const reason = this.#failure;
    if (reason === undefined) {
      await this.#over;
      log.write("handed-over", { milliseconds: monotonic() - started });
      return true;
    }
    // One that has the state is told before the connection ends: see Succession. One that has only a part of it, and may
    // never read the rest, can do nothing with that.
    if (this.#socket.flushed) {
      this.#socket.send(encode({ type: "refused", reason }));
      this.#socket.end();
    } else {
      this.#socket.close();
    }
    bridge.resume();
    await door.open().catch((error: unknown) => bridge.report(error));
    log.write("hand-over-failed", { reason });
    return false;
  }

  #sendState(listening: number, deadline: number): void {
    const { bridge } = this.#estate;
    const state = bridge.snapshot();
    const descriptors = [listening];
    for (const { attachment } of state.guests) {
      if (attachment.link === undefined) continue;
      mapLink(attachment.link, (fd) => {
        descriptors.push(fd);
        return fd;
      });
    }
    const message: State = {
      type: "state",
      bridge: state,
      listen: { text: bridge.config.listen, fd: listening },
      descriptors,
      deadline,
    };
    this.#socket.send(encode(message), descriptors);
  }

  async #answered(): Promise<void> {
    while (!this.#ready && this.#failure === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
