import type { Limits } from "../schemas/index.ts";

/** The limits of the configuration whose reaching is counted: something was refused, closed, held up or left out for it. */
export const countedLimits = [
  "connections",
  "connectionsPerAddress",
  "connectionsPerToken",
  "connectRate",
  "requestRate",
  "messageRate",
  "eventStreams",
  "payloadBytes",
  "fragments",
  "bufferedChunks",
  "pendingPongs",
  "bodyBytes",
  "requestTimeout",
  "responseTimeout",
  "waitingSessions",
  "clientBytes",
  "guestBytes",
  "announcementRate",
  "logRate",
] as const satisfies (keyof Limits)[];

export type CountedLimit = (typeof countedLimits)[number];
