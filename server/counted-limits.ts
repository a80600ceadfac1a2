import type { Limits } from "../schemas/index.ts";

/**
 * The limits whose reaching is counted: something was refused, closed, held up or left out for it. All are of the
 * configuration but that of the process's descriptors.
 */
export const countedLimits = [
  "connections",
  "connectionsPerAddress",
  "connectionsPerToken",
  "connectRate",
  "requestRate",
  "messageRate",
  "eventStreams",
  "captures",
  "captureBytes",
  "payloadBytes",
  "fragments",
  "bufferedChunks",
  "pendingPongs",
  "bodyBytes",
  "requestTimeout",
  "responseTimeout",
  "closeTimeout",
  "waitingSessions",
  "sessionTimeout",
  "pauseTimeout",
  "sendQueueBytes",
  "drainTimeout",
  "handoverTimeout",
  "clientBytes",
  "guestBytes",
  "announcementRate",
  "logRate",
  "descriptors",
] as const satisfies (keyof Limits | "descriptors")[];

export type CountedLimit = (typeof countedLimits)[number];
