import { z } from "zod";
import { EndpointDeclaration, NameServiceMode } from "./declaration.ts";
import { errorCodes } from "./errors.ts";
import { Encoding, SendTimeout } from "./frames.ts";
import {
  Address,
  AddressText,
  Count,
  EndpointState,
  Generation,
  GuestName,
  GuestState,
  Origin,
} from "./identity.ts";

/**
 * Messages and bytes are payload. Once nothing waits, `accepted` is `messagesToGuest` and `undelivered` together.
 */
export const EndpointCounters = z.object({
  /** Messages taken from clients. */
  accepted: Count,
  /** Of these, what was put in the response queue. */
  messagesToGuest: Count,
  bytesToGuest: Count,
  /** And what was given up, or dropped at a reset, before it was. */
  undelivered: Count,
  /** Of `messagesToGuest`, those whose buffer the guest had not given back when it was reset: it may not have read them. */
  unconfirmed: Count,
  messagesFromGuest: Count,
  bytesFromGuest: Count,
  /** Messages of the guest that no client was there to take. */
  noClient: Count,
  /** Messages passed on to clients; one that goes to several counts for each. */
  messagesToClients: Count,
  /** Messages that clients were too slow for. */
  dropped: Count,
});
export type EndpointCounters = z.infer<typeof EndpointCounters>;

export const Endpoint = z.object({
  /** Chosen by the bridge, never used again while it lives. */
  id: z.string(),
  guest: GuestName,
  /** For people: bytes that are not UTF-8 show as U+FFFD. */
  name: z.string(),
  /** Where it is: in the guest, or for one of the host in the bridge. Null where the guest has yet to announce it. */
  address: Address.nullable(),
  origin: Origin,
  /** Which side announces it. */
  ns: NameServiceMode,
  /** Where messages go; null while it is not known. */
  peer: Address.nullable(),
  state: EndpointState,
  generation: Generation,
  /** Longest message, in bytes. */
  mtu: Count,
  /** Clients that are connected, or may still resume their session. */
  clients: Count,
  /** Where to connect; it stays the same while the endpoint lives. */
  path: z.string(),
  counters: EndpointCounters,
});
export type Endpoint = z.infer<typeof Endpoint>;

export const EndpointList = z.object({
  endpoints: z.array(Endpoint),
  /** Where the list goes on: the id for `after`; null at its end. */
  next: z.string().nullable(),
});
export type EndpointList = z.infer<typeof EndpointList>;

const page = {
  /** Most endpoints of an answer. */
  limit: z.coerce.number().int().min(1).max(10_000).default(1000),
  /** The list goes on behind the endpoint with this id. */
  after: z
    .string()
    .regex(/^e\d{1,15}$/, "want the id of an endpoint")
    .optional(),
};

/** The query of a guest's list of endpoints. */
export const EndpointPage = z.strictObject(page);

/** The query of the list of all endpoints: what is given must be equal. */
export const EndpointFilter = z.strictObject({
  guest: z.string().optional(),
  name: z.string().optional(),
  origin: Origin.optional(),
  ...page,
});

/** The query of a capture: which guest, and which endpoints; what is given must be equal. */
export const CaptureQuery = z.strictObject({
  guest: z.string().optional(),
  name: z.string().optional(),
  origin: Origin.optional(),
  address: AddressText.optional(),
});
export type CaptureQuery = z.infer<typeof CaptureQuery>;

/** The body that declares an endpoint. */
export const EndpointCreate = EndpointDeclaration;

/** The body that sends a message, unless it is its bytes. */
export const MessageSend = z.strictObject({
  data: z.string(),
  encoding: Encoding.default("utf8"),
  timeout: SendTimeout.optional(),
  /** Milliseconds to wait for a reply. */
  wait: SendTimeout.optional(),
  /** The local address to send from; without it one of its own for an endpoint of the guest, the service's for one of the host. */
  local: Address.optional(),
});

/** The same in the query, for a body of bytes. */
export const MessageQuery = z.strictObject({
  timeout: z.coerce.number().pipe(SendTimeout).optional(),
  wait: z.coerce.number().pipe(SendTimeout).optional(),
  local: AddressText.optional(),
});

export const MessageSent = z.object({ result: z.literal("sent") });

/** The first message that came back. */
export const MessageReply = z.object({ src: Address, data: z.string(), encoding: Encoding });
export type MessageReply = z.infer<typeof MessageReply>;

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
  generation: Generation,
  /** Names of the negotiated device features; null where the kind of guest has none. */
  features: z.array(z.string()).nullable(),
  /** Sizes of the queues in entries; null where none are set up. */
  queues: z.object({ response: Count, request: Count }).nullable(),
  /**
   * What waits in the queues now: buffers of the guest for messages to it, and messages of it that the bridge has not
   * taken. Null while they do not run.
   */
  waiting: z.object({ response: Count, request: Count }).nullable(),
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
  code: z.enum(errorCodes),
  detail: z.string(),
});
export type Problem = z.infer<typeof Problem>;
