import type { GateSnapshot } from "../access/gate.ts";
import type { SessionSnapshot } from "../channel/json.ts";
import type { EntrySnapshot } from "../directory.ts";
import type { EventLogSnapshot } from "../event-log.ts";
import type { AttachmentSnapshot } from "../guests/attachment.ts";

/** What a bridge that stands still leaves to the one that goes on: plain data, with descriptors of its process. */
export interface BridgeState {
  readonly instance: string;
  readonly gate: GateSnapshot;
  readonly events: EventLogSnapshot;
  /** Number of the next endpoint. */
  readonly nextEndpoint: number;
  readonly guests: readonly GuestState[];
  readonly sessions: readonly SessionSnapshot[];
}

export interface GuestState {
  readonly attachment: AttachmentSnapshot;
  /** How its endpoints are listed, in the attachment's order. */
  readonly entries: readonly EntrySnapshot[];
}

/** The state of another bridge, for the one that goes on. */
export interface Inheritance {
  readonly state: BridgeState;
  /** This process's descriptor for one of the state's. What nobody takes is closed. */
  take(fd: number): number;
}
