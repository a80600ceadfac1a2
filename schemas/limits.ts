import { z } from "zod";

const Milliseconds = z.int().min(1).max(86_400_000);
const Count = z
  .int()
  .min(1)
  .max(2 ** 30);

/** So many a second in the long run, and so many at once. */
function rate(perSecond: number, burst: number) {
  return z.strictObject({ perSecond: Count.default(perSecond), burst: Count.default(burst) }).prefault({});
}

export const Limits = z.strictObject({
  /** Bytes that may wait for a client that does not read: then it is closed with 1013, or what `slow=` says. */
  slowReaderBytes: z
    .int()
    .min(4096)
    .max(2 ** 30)
    .default(2 ** 20),
  /** How long `slow=pause` holds a guest for a client that does not read, before the client is closed with 1013. */
  pauseTimeout: Milliseconds.default(2000),
  /** How long a client whose connection broke may resume its session, and how many bytes are kept for it. */
  sessionTimeout: Milliseconds.default(10_000),
  sessionBytes: z
    .int()
    .min(0)
    .max(2 ** 30)
    .default(2 ** 20),
  /** How long a message may wait for the guest before its client is closed with 4004. */
  sendTimeout: Milliseconds.default(15_000),
  /** Bytes of a client's messages that may wait for the guest before its socket is not read any more. */
  sendQueueBytes: z
    .int()
    .min(1)
    .max(2 ** 30)
    .default(65_536),
  /** How often clients are pinged, and how long they may take to answer. */
  pingInterval: Milliseconds.default(25_000),
  pongTimeout: Milliseconds.default(8000),
  /** How long a stop waits for clients and messages. */
  drainTimeout: Milliseconds.default(7000),
  /** How long a hand-over to a successor may take before the bridge goes on by itself. */
  handoverTimeout: Milliseconds.default(5000),
  /** Most subscriptions of a mux connection. */
  subscriptions: z.int().min(1).max(65_536).default(1024),
  /** Most endpoints that are declared for a guest, by the configuration, over HTTP or by clients that announce. */
  declaredEndpoints: z.int().min(1).max(65_536).default(1024),
  /** Most services that a guest may announce. */
  guestAnnouncements: z.int().min(1).max(65_536).default(1024),
  /** Announcements and withdrawals of a guest; beyond them its request queue is held. */
  announcementRate: rate(1000, 4096),
  /** Most connections, of all kinds; beyond them 503 `overloaded`. */
  connections: Count.default(16_384),
  /** Most connections of one address, or of one network of IPv6 (/64); beyond them 429 `too-many-connections`. */
  connectionsPerAddress: Count.default(256),
  /**
   * Most WebSockets and event streams with one token; beyond them 429 `too-many-connections`. And most tickets that
   * wait to be used, and most sessions; beyond them 429 `rate-limited`.
   */
  connectionsPerToken: Count.default(256),
  /** Upgrades, and other requests, of one address; beyond them 429 `rate-limited`. */
  connectRate: rate(20, 200),
  requestRate: rate(50, 500),
  /** Messages, pings and pongs of one WebSocket; beyond them it is not read. */
  messageRate: rate(10_000, 20_000),
  /** What holds for one address, and `messageRate`, holds for clients on this machine too. */
  limitLocal: z.boolean().default(false),
  /** Most event streams; beyond them 503 `overloaded`. */
  eventStreams: Count.default(1024),
  /** Most captures; beyond them 503 `overloaded`. And bytes that may wait for one: then messages are left out of it. */
  captures: Count.default(16),
  captureBytes: z
    .int()
    .min(65_536)
    .max(2 ** 30)
    .default(2 ** 22),
  /** Longest message of a client; frames of JSON text may be twice as long. */
  payloadBytes: z.int().min(1).max(65_535).default(65_535),
  /** Most fragments of a message, and most pieces of a frame that wait for the rest of it; then 1008. */
  fragments: Count.default(16),
  bufferedChunks: Count.default(64),
  /** Most pongs that wait for a client that pings and does not read; then the connection ends. */
  pendingPongs: Count.default(60),
  /** Longest body of a request, but for one that sends a message. */
  bodyBytes: z
    .int()
    .min(1)
    .max(2 ** 30)
    .default(65_536),
  /** How long the head of a request, a whole request, and the answer to it may take. */
  headersTimeout: Milliseconds.default(10_000),
  requestTimeout: Milliseconds.default(30_000),
  responseTimeout: Milliseconds.default(30_000),
  /** How long a client may take to answer a close. */
  closeTimeout: Milliseconds.default(5000),
  /** Most sessions whose clients are away; beyond them the newest one of the client that has most ends. */
  waitingSessions: Count.default(1024),
  /** Bytes that may wait for all clients together, and for all guests; then those for whom most waits are closed with 1013. */
  clientBytes: z
    .int()
    .min(2 ** 20)
    .default(2 ** 28),
  guestBytes: z
    .int()
    .min(2 ** 20)
    .default(2 ** 28),
  /** Most endpoints that have metrics of their own. */
  metricEndpoints: z.int().min(0).max(65_536).default(1000),
  /** Lines of the log that guests and clients cause. */
  logRate: rate(10, 100),
});
export type Limits = z.infer<typeof Limits>;

/** A bound on how often. */
export type Rate = Limits["messageRate"];
