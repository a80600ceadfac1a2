/**
 * Errors of the core. The `code` is stable and from a closed set; the message says what was wrong in words.
 * Four families tell who misbehaved, and with that what the error costs: a guest loses its queue, a frontend its
 * connection, a caller its call.
 */

/** A guest broke a rule of its rings: the queue is stopped until the guest resets the device. */
export type GuestErrorCode =
  | "avail-index-jump"
  | "buffer-too-small"
  | "chain-too-long"
  | "descriptor-index"
  | "descriptor-order"
  | "descriptor-range"
  | "indirect-length"
  | "indirect-nested"
  | "indirect-not-negotiated"
  | "indirect-with-next"
  | "used-index-jump"
  | "used-length"
  | "used-unknown-id";

/** A vhost-user peer sent something that the protocol does not allow: its connection ends or the request is refused. */
export type FrontendErrorCode =
  | "ancillary-truncated"
  | "config-range"
  | "descriptor-count"
  | "feature-not-offered"
  | "inflight-queues"
  | "kick-unusable"
  | "log-range"
  | "memory-limit"
  | "memory-map"
  | "memory-overlap"
  | "memory-range"
  | "message-flags"
  | "message-size"
  | "message-truncated"
  | "message-unknown"
  | "reply-unexpected"
  | "ring-alignment"
  | "ring-index"
  | "ring-range"
  | "ring-size";

/** RPMsg semantics: a call that cannot be done. */
export type RpmsgErrorCode =
  | "address-in-use"
  | "address-invalid"
  | "address-space-full"
  | "already-announced"
  | "device-closed"
  | "name-invalid"
  | "name-service-off"
  | "too-many-endpoints";

/** The operating system refused; `message` has the call and the errno's name. */
export type SystemErrorCode = "socket";

export type ErrorCode = GuestErrorCode | FrontendErrorCode | RpmsgErrorCode | SystemErrorCode;

/** Base of everything that the core throws on purpose. */
export class CodedError<Code extends ErrorCode = ErrorCode> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string) {
    super(`${message} (${code})`);
    this.name = new.target.name;
    this.code = code;
  }
}

export class GuestError extends CodedError<GuestErrorCode> {}
export class FrontendError extends CodedError<FrontendErrorCode> {}
export class RpmsgError extends CodedError<RpmsgErrorCode> {}
export class SystemError extends CodedError<SystemErrorCode> {}
