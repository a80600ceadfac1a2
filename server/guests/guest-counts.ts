import type { CodedError, GuestError } from "../../rpmsg/index.ts";
import type { DropCause, UndeliveredCode } from "../endpoint-port.ts";
import { dropCauses, undeliveredCodes } from "../endpoint-port.ts";
import { Tally } from "../tally.ts";

/** What happened with one guest, by code or cause: besides the counters that everybody is told. */
export class GuestCounts {
  /** Messages of the guest that did not come to a client. */
  readonly dropped = new Tally<DropCause>(dropCauses);
  /** Messages of clients that did not come to the guest. */
  readonly undelivered = new Tally<UndeliveredCode>(undeliveredCodes);
  readonly rejected = {
    /** Requests of the frontend that were refused, and connections that ended for a mistake of it. */
    frontend: new Tally<CodedError["code"] | "internal">(),
    /** Queues that the guest broke. */
    queue: new Tally<GuestError["code"]>(),
  };
}
