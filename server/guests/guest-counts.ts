import type { CodedError, GuestError } from "../../rpmsg/index.ts";
import type { DropCause, UndeliveredCode } from "../endpoint-port.ts";
import { dropCauses, undeliveredCodes } from "../endpoint-port.ts";
import { Histogram } from "../histogram.ts";
import { Tally } from "../tally.ts";

/** In seconds. A guest that is awake has taken a message within milliseconds. */
const WAIT_BOUNDS = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15];

/** What happened with one guest, by code or cause: besides the counters that everybody is told. */
export class GuestCounts {
  /** Messages of the guest that did not come to a client. */
  readonly dropped = new Tally<DropCause>(dropCauses);
  /** Messages of clients that did not come to the guest. */
  readonly undelivered = new Tally<UndeliveredCode>(undeliveredCodes);
  /** How long messages waited for a buffer, or for their peer's address, that found none at once; seconds. */
  readonly waits = new Histogram(WAIT_BOUNDS);
  readonly rejected = {
    /** Requests of the frontend that were refused, and connections that ended for a mistake of it. */
    frontend: new Tally<CodedError["code"] | "internal">(),
    /** Queues that the guest broke. */
    queue: new Tally<GuestError["code"]>(),
  };
}
