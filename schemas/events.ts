import { z } from "zod";
import { Generation, GuestName } from "./identity.ts";
import { Endpoint, Guest } from "./resources.ts";

/**
 * The server-sent events of `/api/v1/events`: their names and data. First come all guests and endpoints, then `ready`,
 * then changes; `counters` and `waiting` alone are no change. Where `Last-Event-ID` is recent enough only what was
 * missed comes.
 */
export const events = {
  /** A guest, as it is now. */
  guest: Guest,
  /** An endpoint, new or changed. */
  endpoint: Endpoint,
  "endpoint-removed": z.object({
    id: z.string(),
    guest: GuestName,
    name: z.string(),
    generation: Generation,
  }),
  /** The current state is complete. */
  ready: z.object({ instance: z.string() }),
} as const;

export type EventName = keyof typeof events;
export type EventData<Name extends EventName = EventName> = z.infer<(typeof events)[Name]>;
