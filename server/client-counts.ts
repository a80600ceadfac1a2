import type { ErrorCode } from "../schemas/index.ts";
import { closeCode, errorCodes } from "../schemas/index.ts";
import type { CountedLimit } from "./counted-limits.ts";
import { countedLimits } from "./counted-limits.ts";
import type { ProblemCode } from "./problem.ts";
import { problemCodes } from "./problem.ts";
import { Tally } from "./tally.ts";

/** The subprotocols, in short. */
const protocols = ["raw", "json", "mux"] as const;
export type ProtocolName = (typeof protocols)[number];

/** Close codes by name: those of the WebSocket protocol itself, and ours. */
const closeCodes = { protocolError: 1002, badData: 1007, ...closeCode };
const causeOf = new Map(Object.entries(closeCodes).map(([name, code]) => [code, kebab(name)]));

/**
 * Ends that have no code of ours: the client said good-bye; the connection broke; the client did not answer a ping; it
 * came back over another connection.
 */
const otherEnds = ["client", "broken", "no-pong", "resumed"] as const;
type OtherEnd = (typeof otherEnds)[number];

const faults = new Set<string>(
  [
    ...[
      closeCodes.protocolError,
      closeCodes.badData,
      closeCodes.policy,
      closeCode.unsupported,
      closeCode.tooBig,
    ],
    ...[closeCode.internal, closeCode.slowReader, closeCode.notDelivered],
  ].map((code) => causeOf.get(code) ?? ""),
).add("no-pong");

/** Errors of ws by the code with which it closes; its others are breaks of the protocol. */
const codesOfWs: Readonly<Record<string, number>> = {
  WS_ERR_INVALID_UTF8: 1007,
  WS_ERR_TOO_MANY_BUFFERED_PARTS: closeCode.policy,
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: closeCode.tooBig,
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: closeCode.tooBig,
};

/** Why Node's HTTP parser gave a connection up; or a request came before the one ahead of it was answered. */
const headFaults = ["timeout", "too-large", "malformed", "pipelined"] as const;
type HeadFault = (typeof headFaults)[number];

/** What happened with clients: connections, and what of theirs was refused, by the code that it was refused with. */
export class ClientCounts {
  readonly opened = new Tally<ProtocolName>(protocols);
  /** By cause: the name of a close code, or an `OtherEnd`. */
  readonly closed = new Tally<string>([...otherEnds, ...causeOf.values()]);
  /** Limits of the configuration that were reached. */
  readonly limits = new Tally<CountedLimit>(countedLimits);
  readonly rejected = {
    /** Requests that nothing was done for. */
    head: new Tally<HeadFault>(headFaults),
    http: new Tally<ProblemCode>(problemCodes),
    upgrade: new Tally<ProblemCode>(problemCodes),
    /** `error` frames. */
    frame: new Tally<ErrorCode>(errorCodes),
    /** Subscriptions that the bridge ended. */
    subscription: new Tally<ErrorCode>(errorCodes),
  };

  /**
   * Node could not read a request, or not begin with TLS.
   * @returns as what it is counted; undefined where the connection broke, which is no fault of the request
   */
  headFault({ code }: NodeJS.ErrnoException): HeadFault | undefined {
    if (code === "ECONNRESET" || code === "EPIPE") return undefined;
    const fault = headFaultOf(code);
    this.rejected.head.add(fault);
    // Node does not tell a head that is late from a body that is.
    if (fault === "timeout") this.limits.add("requestTimeout");
    return fault;
  }

  /** A connection is over. @returns the cause, as it is counted */
  ended(end: number | OtherEnd): string {
    const cause = typeof end === "number" ? (causeOf.get(end) ?? "policy") : end;
    this.closed.add(cause);
    return cause;
  }
}

function headFaultOf(code: string | undefined): HeadFault {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT" || code === "ERR_TLS_HANDSHAKE_TIMEOUT") return "timeout";
  return code === "HPE_HEADER_OVERFLOW" ? "too-large" : "malformed";
}

/** Whether a connection ended for what the client did, or did not do. */
export function isFault(cause: string): boolean {
  return faults.has(cause);
}

/** The code with which ws closes a connection for what the client sent. */
export function closeCodeOf({ code = "" }: NodeJS.ErrnoException): number {
  return codesOfWs[code] ?? closeCodes.protocolError;
}

function kebab(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
