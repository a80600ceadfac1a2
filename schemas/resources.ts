import { z } from "zod";
import { Address, GuestName, Origin } from "./identity.ts";

/**
 * waiting: no frontend; detached: a frontend, its driver not running; suspended: both rings stopped, as in a paused
 * virtual machine; attached: the driver runs.
 */
export const GuestState = z.enum(["waiting", "detached", "suspended", "attached"]);
export type GuestState = z.infer<typeof GuestState>;

/**
 * declared: a service of the host that the guest has not been told of; announced: it has; connected: the peer's
 * address is known.
 */
export const EndpointState = z.enum(["declared", "announced", "connected"]);
export type EndpointState = z.infer<typeof EndpointState>;

const Count = z.int().min(0);

/** Messages and bytes are payload. What goes to the guest counts when it is taken from a client. */
export const EndpointCounters = z.object({
  messagesToGuest: Count,
  bytesToGuest: Count,
  messagesFromGuest: Count,
  bytesFromGuest: Count,
  /** Messages of the guest that no client was there to take. */
  noClient: Count,
  /** Messages of clients that waited too long and were given up. */
  undelivered: Count,
});
export type EndpointCounters = z.infer<typeof EndpointCounters>;

export const Endpoint = z.object({
  /** Chosen by the bridge, never used again while it lives. */
  id: z.string(),
  guest: GuestName,
  /** For people: bytes that are not UTF-8 show as U+FFFD. */
  name: z.string(),
  address: Address,
  origin: Origin,
  state: EndpointState,
  generation: z.int().min(1),
  /** Longest message, in bytes. */
  mtu: Count,
  /** WebSocket clients that are connected. */
  clients: Count,
  /** Where to connect; it stays the same while the endpoint lives. */
  path: z.string(),
  counters: EndpointCounters,
});
export type Endpoint = z.infer<typeof Endpoint>;

export const EndpointList = z.object({ endpoints: z.array(Endpoint) });
export type EndpointList = z.infer<typeof EndpointList>;

/** The query of the list of endpoints: what is given must be equal. */
export const EndpointFilter = z.strictObject({
  guest: z.string().optional(),
  name: z.string().optional(),
  origin: Origin.optional(),
});

const GuestCounters = z.object({
  messagesToGuest: Count,
  bytesToGuest: Count,
  messagesFromGuest: Count,
  bytesFromGuest: Count,
  malformed: Count,
  unknownAddress: Count,
  nameServiceOff: Count,
  nameServiceMalformed: Count,
  nameServiceLimit: Count,
  nameServiceIgnored: Count,
  brokenQueues: Count,
  /** Requests of the frontend that were refused, and connections that ended for a mistake of it. */
  frontendErrors: Count,
});

export const Guest = z.object({
  name: GuestName,
  /** `emulated`, `vhost-user`, and others to come. */
  kind: z.string(),
  state: GuestState,
  generation: z.int().min(1),
  /** Names of the negotiated device features; null where the kind of guest has none. */
  features: z.array(z.string()).nullable(),
  /** Sizes of the queues in entries; null where none are set up. */
  queues: z.object({ response: Count, request: Count }).nullable(),
  /** Longest message to the guest, in bytes. */
  mtu: Count,
  counters: GuestCounters,
});
export type Guest = z.infer<typeof Guest>;

export const GuestList = z.object({ guests: z.array(Guest) });
export type GuestList = z.infer<typeof GuestList>;

/** Errors of the HTTP interface, `application/problem+json` (RFC 9457) with a stable `code`. */
export const Problem = z.object({
  type: z.literal("about:blank"),
  title: z.string(),
  status: z.int(),
  code: z.string(),
  detail: z.string(),
});
export type Problem = z.infer<typeof Problem>;
