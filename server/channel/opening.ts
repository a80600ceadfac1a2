import type { JsonQuery, SlowPolicy } from "../../schemas/index.ts";
import type { Permit, Refusal } from "../access/permit.ts";
import type { EndpointPort } from "../endpoint-port.ts";

/** How an endpoint is opened. */
export interface Opening extends Partial<Pick<JsonQuery, "share" | "local">> {
  takeover?: string | undefined;
  slow?: SlowPolicy;
  /** The client is the service itself: it has no successor. */
  isService?: boolean;
  /** The client wants the guest's messages; it does unless said otherwise. */
  listens?: boolean;
}

/** What a client may do with an endpoint that it opens. */
export interface Allowed {
  /** It gets the guest's messages. */
  readonly listens: boolean;
  /** Why it may not send. */
  readonly sendRefusal: Refusal | undefined;
  /** It may send to any address but that of name service. */
  readonly anywhere: boolean;
}

export function isSame(a: Allowed, b: Allowed): boolean {
  return a.listens === b.listens && a.sendRefusal === b.sendRefusal && a.anywhere === b.anywhere;
}

/**
 * What a permit allows of an opening.
 * @throws HttpProblem forbidden, read-only: what was asked for beyond that
 */
export function judge(permit: Permit, endpoint: EndpointPort, opening: Opening): Allowed {
  const { share, takeover, local, slow, isService = false, listens = true } = opening;
  const sendRefusal = permit.refusal("write", endpoint);
  const reads = permit.may("read", endpoint);
  // The announcement was permitted; a service may be there to be seen only.
  if (!isService) {
    if (!reads && sendRefusal !== undefined) {
      // Of a right to write nothing is left where the bridge is read-only.
      permit.demand(sendRefusal === "read-only" ? "write" : "read", endpoint, "to connect");
    }
    // They keep others from their messages, or the guest from its own.
    if (share === "exclusive") permit.demand("write", endpoint, "share=exclusive");
    if (slow === "pause") permit.demand("write", endpoint, "slow=pause");
  }
  if (takeover === "1") permit.demand("admin", endpoint, "takeover=1");
  // With an address of one's choice one gets what is meant for another endpoint's clients.
  if (local !== undefined) permit.demand("admin", endpoint, "local=");
  return { listens: listens && reads, sendRefusal, anywhere: permit.isAdmin(endpoint) };
}
