import { z } from "zod";
import { Origin, parseAddress } from "./identity.ts";

/** The subprotocols of `/ws/v1/{guest}/{endpoint}`; no subprotocol means the first. */
export const subprotocols = ["rpmsg.v1.raw"] as const;

/** Close codes of WebSocket connections: those of RFC 6455 that we use, and our own. */
export const closeCode = {
  drain: 1001,
  tooBig: 1009,
  slowReader: 1013,
  guestReset: 4001,
  endpointWithdrawn: 4002,
  notDelivered: 4004,
} as const;

const AddressText = z.string().transform((text, context) => {
  const address = parseAddress(text);
  if (address !== undefined) return address;
  context.addIssue(`"${text}" is not an address: want a number below 2^32 - 1, decimal or with 0x`);
  return z.NEVER;
});

/** The query of a channel's URL. */
export const ChannelQuery = z.strictObject({
  /** Whether the client has a local address of its own, or one together with others. */
  share: z.enum(["private", "shared"]).optional(),
  /** The channel's local address. */
  local: AddressText.optional(),
  /** What happens to a client that does not read. */
  slow: z.enum(["close"]).optional(),
  origin: Origin.optional(),
});
export type ChannelQuery = z.infer<typeof ChannelQuery>;
