import { z } from "zod";
import { Encoding } from "./frames.ts";
import { AddressText, Origin } from "./identity.ts";

/** The subprotocols of one endpoint's path; no subprotocol means the first. */
export const channelProtocols = ["rpmsg.v1.raw", "rpmsg.v1.json"] as const;
export type ChannelProtocol = (typeof channelProtocols)[number];
/** The subprotocol of `/ws/v1`. */
export const muxProtocol = "rpmsg.v1.mux";

/** Close codes of WebSocket connections: those of RFC 6455 that we use, and our own. */
export const closeCode = {
  drain: 1001,
  unsupported: 1003,
  policy: 1008,
  tooBig: 1009,
  internal: 1011,
  restart: 1012,
  slowReader: 1013,
  guestReset: 4001,
  endpointWithdrawn: 4002,
  replaced: 4003,
  notDelivered: 4004,
} as const;

/**
 * private: an own local address, replies to it come to this client alone; shared: one for all such clients;
 * exclusive: the endpoint's only client.
 */
export const Share = z.enum(["private", "shared", "exclusive"]);
export type Share = z.infer<typeof Share>;

/** What happens when a client does not read what the guest sends it. */
export const SlowPolicy = z.enum(["close", "pause", "drop-oldest", "drop-newest"]);
export type SlowPolicy = z.infer<typeof SlowPolicy>;

const access = {
  share: Share.optional(),
  /** Ends the other clients of the endpoint; with `share=exclusive`. */
  takeover: z.enum(["0", "1"]).optional(),
  /** The channel's local address. */
  local: AddressText.optional(),
  slow: SlowPolicy.default("close"),
  origin: Origin.optional(),
};

const json = {
  /** Encoding of the messages to the client; without it utf8 where they are valid UTF-8, else base64. */
  encoding: Encoding.optional(),
};

const takeoverNeedsExclusive = (query: { takeover?: string | undefined; share?: Share | undefined }) =>
  query.takeover !== "1" || query.share === "exclusive";
const takeoverIssue = { path: ["takeover"], message: "takeover=1 needs share=exclusive" };

/** The query of a raw channel's URL, and of a path in a mux subscription. */
export const RawQuery = z.strictObject(access).refine(takeoverNeedsExclusive, takeoverIssue);
export type RawQuery = z.infer<typeof RawQuery>;

/** The query of a JSON channel's URL. */
export const JsonQuery = z
  .strictObject({
    ...access,
    ...json,
    /** The session to go on with, and the last `seq` that came. */
    resume: z.string().max(64).optional(),
    after: z
      .string()
      .regex(/^\d{1,15}$/, "want a number")
      .transform(Number)
      .optional(),
    /** Messages that may come on this connection, until a `credit` frame grants more; without it any number. */
    credit: z
      .string()
      .regex(/^\d{1,9}$/, "want a number")
      .transform(Number)
      .optional(),
  })
  .refine(takeoverNeedsExclusive, takeoverIssue)
  .refine((query) => (query.resume === undefined) === (query.after === undefined), {
    path: ["after"],
    message: "resume= and after= go together",
  });
export type JsonQuery = z.infer<typeof JsonQuery>;

const announce = {
  announce: z.string(),
  /** The service's address. */
  local: AddressText.optional(),
  slow: SlowPolicy.default("close"),
};

/** The query of `/ws/v1/{guest}?announce=NAME`: the client is the service. */
export const RawAnnounceQuery = z.strictObject(announce);
export const JsonAnnounceQuery = z.strictObject({ ...announce, ...json });
