import type { ProfileName } from "./profiles.ts";

/** What a service of an emulated guest may do. */
export interface ServiceContext {
  /** Name of the endpoint. */
  readonly name: string;
  /** The endpoint's own address. */
  readonly address: number;
  /** The host's address that the endpoint's channel leads to, as soon as it is known. */
  readonly peer: number | undefined;
  /** Longest message, in bytes. */
  readonly mtu: number;
  /** Profile of the guest. */
  readonly guest: ProfileName;
  /**
   * Sends to an address.
   * @returns false when no buffer is free: `onWritable` is called when one is
   * @throws RangeError where the profile refuses a message longer than `mtu`
   */
  send(dst: number, bytes: Uint8Array, offset?: number, length?: number): boolean;
  /** Tells whoever runs the guest of what went wrong. */
  report(code: ServiceErrorCode, reason: string, cause?: unknown): void;
}

/** One endpoint of an emulated guest. */
export interface Service {
  /**
   * A message arrived; `bytes` is valid during the call only.
   * @returns false when it cannot be taken now: the guest takes no more messages until a buffer is free, and this one
   *   comes again
   */
  onMessage(src: number, bytes: Uint8Array, offset: number, length: number): boolean;
  /** A transmit buffer is free again. */
  onWritable?(): void;
  /** The endpoint has ended: at a reset, or because it was withdrawn. */
  close?(): void;
}

/** Makes a service; it runs anew at every boot. What it throws is reported, and the guest goes on. */
export type ServiceFactory = (context: ServiceContext) => Service;

/**
 * How an endpoint and the host find each other. none: nobody announces it, its address is agreed on; down: it is there
 * when the host announces the name; up: the guest announces it; both: it does, and it answers where the host announces
 * the name, too.
 */
export type ServiceNs = "none" | "down" | "up" | "both";

export interface ServiceOptions {
  service: ServiceFactory;
  /** Default: `both`. */
  ns?: ServiceNs;
  /** The endpoint's address; without one the lowest that is free. With `down` the guest always chooses. */
  address?: number;
}

/** A service by its name, ready to be started. */
export interface NamedService {
  /** One character a byte. */
  readonly name: string;
  readonly factory: ServiceFactory;
  readonly ns: ServiceNs;
  readonly address: number | undefined;
}

/**
 * failed: code of a service threw, and what it was about was left out; output-full: more messages than may wait for
 * buffers, this one was dropped; ended: a message of an endpoint that a reset or a withdrawal had ended was dropped.
 */
export type ServiceErrorCode = "failed" | "output-full" | "ended";

/** What went wrong in a service; the guest goes on. */
export class ServiceError extends Error {
  readonly code: ServiceErrorCode;
  /** Name of the endpoint. */
  readonly service: string;

  constructor(code: ServiceErrorCode, service: string, reason: string, cause?: unknown) {
    super(`service ${service}: ${reason}`, { cause });
    this.name = "ServiceError";
    this.code = code;
    this.service = service;
  }
}
