import { z } from "zod";
import { errorCodes } from "./errors.ts";
import { Address, Count, EndpointState, Generation, GuestName, GuestState } from "./identity.ts";

/** How the bytes of a message are written in JSON. */
export const Encoding = z.enum(["utf8", "base64", "hex"]);
export type Encoding = z.infer<typeof Encoding>;

/** Milliseconds that a message may wait for the guest. */
export const SendTimeout = z.int().min(1).max(86_400_000);

/** Chosen by the client, given back with the result. */
const MessageId = z.union([z.string().max(64), z.int()]);
export type MessageId = z.infer<typeof MessageId>;

const Failure = { code: z.enum(errorCodes), message: z.string() };

/** Why an endpoint is down. */
const DownReason = z.enum(["reset", "withdrawn"]);
export type DownReason = z.infer<typeof DownReason>;

const State = {
  state: z.enum(["up", "down"]),
  /** Given when the state is down. */
  reason: DownReason.optional(),
  endpointState: EndpointState,
  guestState: GuestState,
  generation: Generation,
};

// ---- rpmsg.v1.json: text frames ----

/** The first frame of a connection. */
const HelloFrame = z.object({
  type: z.literal("hello"),
  protocol: z.literal("rpmsg.v1.json"),
  guest: GuestName,
  /** Name of the endpoint, as it is listed. */
  endpoint: z.string(),
  /** Id of the endpoint. */
  id: z.string(),
  /** The channel's own address. */
  local: Address,
  endpointState: EndpointState,
  guestState: GuestState,
  generation: Generation,
  /** Longest message, in bytes. */
  mtu: Count,
  /** The bridge; it survives a hand-over to a new process. */
  instance: z.string(),
  /** For `?resume=`, after a connection that broke. */
  session: z.string(),
  /** The session that was asked for goes on; its missed messages follow. */
  resumed: z.boolean(),
});

/** A message of the guest. */
const MessageFrame = z.object({
  type: z.literal("message"),
  /** Counts the channel's messages from 1 on, dropped ones too. */
  seq: z.int().min(1),
  src: Address,
  data: z.string(),
  encoding: Encoding,
});

/** A message with an id is in the guest's response queue. */
const SentFrame = z.object({ type: z.literal("sent"), id: MessageId });

/** A frame was not understood, or a message not delivered: then with its id, where it had one. */
const ErrorFrame = z.object({ type: z.literal("error"), id: MessageId.optional(), ...Failure });

/** Messages that the client was too slow for, since the last such frame. */
const DroppedFrame = z.object({ type: z.literal("dropped"), count: z.int().min(1) });

/** The endpoint or its guest changed. After `down` the connection is closed. */
const StateFrame = z.object({ type: z.literal("state"), ...State });

const PongFrame = z.object({ type: z.literal("pong") });

export const ServerFrame = z.discriminatedUnion("type", [
  HelloFrame,
  MessageFrame,
  SentFrame,
  ErrorFrame,
  DroppedFrame,
  StateFrame,
  PongFrame,
]);
export type ServerFrame = z.infer<typeof ServerFrame>;

/** A message to the guest. */
const SendFrame = z.strictObject({
  type: z.literal("send"),
  /** With an id the result is told. */
  id: MessageId.optional(),
  data: z.string(),
  encoding: Encoding.default("utf8"),
  /** The channel's peer, or an address that a message came from; without it the endpoint's peer. */
  dst: Address.optional(),
  timeout: SendTimeout.optional(),
});

const PingFrame = z.strictObject({ type: z.literal("ping") });

const Credit = z
  .int()
  .min(0)
  .max(2 ** 31);

/** More messages may come: so many. Nothing where the connection has no `credit=`. */
const CreditFrame = z.strictObject({ type: z.literal("credit"), messages: Credit });

export const ClientFrame = z.discriminatedUnion("type", [SendFrame, CreditFrame, PingFrame]);
export type ClientFrame = z.infer<typeof ClientFrame>;
/** A client's frame before defaults are filled in. */
export type ClientFrameInput = z.input<typeof ClientFrame>;

// ---- rpmsg.v1.mux: text frames for control, binary frames for messages ----

/**
 * The header of a binary frame, little endian, before the payload.
 * From the client: subscription, destination (0xffffffff: the endpoint's peer), number of the message or 0; with a
 * number the result is told. From the server: subscription, source, the channel's count of messages from 1 on, which
 * starts again after 2^32 - 1.
 */
export const muxHeader = { subscription: 0, address: 4, number: 8, size: 12 } as const;

/** Bytes of credit that a message costs besides its payload: those of its RPMsg header. */
export const MUX_MESSAGE_COST = 16;

/** Chosen by the client. */
const Subscription = z.int().min(0).max(0xffff_ffff);
/** Number of a message, as in the header. */
const Numbered = z.int().min(1).max(0xffff_ffff);

const subscribed = {
  guest: GuestName,
  endpoint: z.string(),
  id: z.string(),
  local: Address,
  endpointState: EndpointState,
  guestState: GuestState,
  generation: Generation,
  mtu: Count,
};

export const MuxServerFrame = z.discriminatedUnion("type", [
  z.object({ type: z.literal("hello"), protocol: z.literal("rpmsg.v1.mux"), instance: z.string() }),
  /** Messages may be sent now, up to the credit in bytes. */
  z.object({ type: z.literal("subscribed"), sub: Subscription, ...subscribed, credit: Credit }),
  /** More may be sent: so many bytes. */
  z.object({ type: z.literal("credit"), sub: Subscription, bytes: Credit }),
  z.object({ type: z.literal("sent"), sub: Subscription, id: Numbered }),
  z.object({
    type: z.literal("error"),
    sub: Subscription.optional(),
    id: Numbered.optional(),
    ...Failure,
  }),
  z.object({ type: z.literal("dropped"), sub: Subscription, count: z.int().min(1) }),
  /** After `down` the subscription waits; with `up` come a new `subscribed` and fresh credit in both directions. */
  z.object({ type: z.literal("state"), sub: Subscription, ...State }),
  /** The subscription is over: as asked, or for the reason in `code`. */
  z.object({ type: z.literal("unsubscribed"), sub: Subscription, code: z.enum(errorCodes).optional() }),
  z.object({ type: z.literal("pong") }),
]);
export type MuxServerFrame = z.infer<typeof MuxServerFrame>;

export const MuxClientFrame = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("subscribe"),
    sub: Subscription,
    /** As in the URL of a channel, with its query: `/ws/v1/demo/echo?share=shared`. */
    path: z.string().max(1024),
    /** Bytes of messages that may come; without it any number. */
    credit: Credit.optional(),
  }),
  z.strictObject({ type: z.literal("unsubscribe"), sub: Subscription }),
  /** More messages may come: so many bytes. */
  z.strictObject({ type: z.literal("credit"), sub: Subscription, bytes: Credit }),
  PingFrame,
]);
export type MuxClientFrame = z.infer<typeof MuxClientFrame>;
