import { ADDRESS_ANY } from "../rpmsg/index.ts";
import { OutputQueue } from "./output-queue.ts";
import type { ProfileName } from "./profiles.ts";
import { payloadLength, profiles } from "./profiles.ts";
import type { Service, ServiceContext, ServiceFactory } from "./service.ts";

/** Cost of the output of an endpoint that may wait for buffers; what comes then is dropped and reported. */
const MOST_OUTPUT = 64 * 1024;

/** The longest time of a timer, in milliseconds. */
const LONGEST_TIME = 2 ** 31 - 1;

/** A message that a service got. It is a copy: keep it as long as you like. */
export interface ServiceMessage {
  /** Address of the sender. */
  readonly src: number;
  readonly bytes: Uint8Array;
  /** The bytes as UTF-8. */
  readonly text: string;
  /** Answers the sender: any number of times, now or later. As `send` of the endpoint. */
  readonly reply: (data: string | Uint8Array) => boolean;
}

/** An endpoint of an emulated guest, for the code behind it. It ends with a reset of the guest. */
export interface ServiceEndpoint {
  readonly name: string;
  readonly address: number;
  /** The host's address that the endpoint's channel leads to, as soon as it is known. */
  readonly peer: number | undefined;
  /** Longest message, in bytes. */
  readonly mtu: number;
  readonly profile: ProfileName;
  /**
   * Sends a message, text as UTF-8. Where no buffer is free it waits for one, behind those that wait already.
   * @param to an address; without one the peer
   * @returns false where the message was dropped, which is reported too: too much waits, or the endpoint has ended
   * @throws RangeError the message is too long, or there is no such address; Error: the peer is not known yet
   */
  readonly send: (data: string | Uint8Array, to?: number) => boolean;
  /** Calls `action` once, after so many milliseconds. @returns takes it back */
  readonly after: (milliseconds: number, action: ServiceAction) => () => void;
  /** Calls `action` again and again, every so many milliseconds. @returns stops it */
  readonly every: (milliseconds: number, action: ServiceAction) => () => void;
}

/**
 * Code of a service. What it throws, or its promise rejects with, is reported, and the guest goes on. What it returns
 * else is of no interest.
 */
export type ServiceAction = () => unknown;
export type MessageAction = (message: ServiceMessage) => unknown;

/**
 * A service in a few lines. `setup` runs at every boot, with the endpoint, and returns what is done with a message:
 *
 * ```ts
 * service(() => {
 *   let readings = 0;
 *   return ({ text, reply }) => {
 *     if (text === "read") reply(`21.5 (${++readings})`);
 *   };
 * });
 * ```
 *
 * While its output waits for buffers, the service gets no messages: they wait in theirs, as with a driver that sleeps
 * in its answer.
 */
export function service(setup: (endpoint: ServiceEndpoint) => MessageAction | undefined): ServiceFactory {
  return (context) => new DefinedService(context, setup);
}

class DefinedService implements Service {
  readonly #context: ServiceContext;
  readonly #output: OutputQueue;
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #action: MessageAction | undefined;
  #ended = false;

  constructor(context: ServiceContext, setup: (endpoint: ServiceEndpoint) => MessageAction | undefined) {
    this.#context = context;
    this.#output = new OutputQueue(context);
    const send = (data: string | Uint8Array, to = context.peer): boolean => {
      if (to === undefined) throw new Error("the peer is not known yet: give an address");
      return this.#send(data, to);
    };
    try {
      const action = setup({
        name: context.name,
        address: context.address,
        get peer() {
          return context.peer;
        },
        mtu: context.mtu,
        profile: context.guest,
        send,
        after: (milliseconds, act) => this.#timer(milliseconds, act, false),
        every: (milliseconds, act) => this.#timer(milliseconds, act, true),
      });
      if (action !== undefined && typeof action !== "function") {
        throw new TypeError("its setup is to return a function that takes messages, or nothing");
      }
      this.#action = action;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  onMessage(src: number, bytes: Uint8Array, offset: number, length: number): boolean {
    if (!this.#output.flush()) return false;
    const action = this.#action;
    if (action === undefined) return true;
    const message = new Message(src, bytes.slice(offset, offset + length), (data) => this.#send(data, src));
    this.#run(() => action(message));
    return true;
  }

  onWritable(): void {
    this.#output.flush();
  }

  close(): void {
    this.#ended = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    const waiting = this.#output.length;
    this.#output.clear();
    if (waiting > 0)
      this.#context.report("ended", `${waiting} messages that waited for a buffer were dropped`);
  }

  #send(data: string | Uint8Array, to: number): boolean {
    if (!(Number.isInteger(to) && to >= 0 && to < ADDRESS_ANY)) throw new RangeError(`${to} is no address`);
    // Copied: it may have to wait.
    const bytes = Buffer.from(data);
    // Refused now and not when its turn comes.
    payloadLength(profiles[this.#context.guest], bytes.length);
    if (this.#ended) {
      this.#context.report("ended", "a message was sent after the endpoint had ended, and dropped");
      return false;
    }
    if (this.#output.cost > MOST_OUTPUT) {
      this.#context.report("output-full", "too much waits for buffers, a message was dropped");
      return false;
    }
    this.#output.push(to, bytes);
    return true;
  }

  #timer(milliseconds: number, action: ServiceAction, again: boolean): () => void {
    if (!(milliseconds >= 0 && milliseconds <= LONGEST_TIME)) {
      throw new RangeError(`want 0 to ${LONGEST_TIME} milliseconds, not ${milliseconds}`);
    }
    if (this.#ended) return () => {};
    const run = (): void => {
      if (!again) this.#timers.delete(timer);
      this.#run(action);
    };
    // They do not keep a process alive: what the guest is attached to does.
    const timer = (again ? setInterval(run, milliseconds) : setTimeout(run, milliseconds)).unref();
    this.#timers.add(timer);
    return () => {
      clearTimeout(timer);
      this.#timers.delete(timer);
    };
  }

  #run(action: ServiceAction): void {
    const failed = (error: unknown): void => {
      this.#context.report("failed", error instanceof Error ? error.message : String(error), error);
    };
    try {
      const result = action();
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}

class Message implements ServiceMessage {
  readonly src: number;
  readonly bytes: Uint8Array;
  readonly reply: (data: string | Uint8Array) => boolean;

  constructor(src: number, bytes: Uint8Array, reply: (data: string | Uint8Array) => boolean) {
    this.src = src;
    this.bytes = bytes;
    this.reply = reply;
  }

  get text(): string {
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength).toString();
  }
}
