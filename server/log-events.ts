export interface LogEvent {
  readonly level: "error" | "warn" | "info" | "debug";
  /** When it is written, and what to do about it. */
  readonly text: string;
  /** Its fields, besides those that all events have. */
  readonly fields: Readonly<Record<string, string>>;
  /** Those that it may have. */
  readonly maybe?: Readonly<Record<string, string>>;
}

const frontend = {
  code: "Code of the error: see rpmsg/errors.ts; `internal` for a mistake of the bridge.",
  reason: "What went wrong.",
};
const client = {
  peer: "Address of the client; `unix` for one of a Unix socket.",
  protocol: "`raw`, `json` or `mux`.",
  path: "The path that it asked for, percent-encoded as it was sent, without its query.",
};

/**
 * Everything that the bridge logs, by the stable name in `event`. Programs go by these names: none is ever used for
 * something else. error: the bridge made a mistake, or could not do what it was told (certificates, a hand-over); warn:
 * somebody should look; info: the state of guests and of the bridge, and clients that were closed for what they did;
 * debug: every client.
 */
export const logEvents = {
  // The bridge.
  stopping: {
    level: "info",
    text: "The bridge was told to stop: clients are closed, messages delivered.",
    fields: { signal: "The signal that told it." },
  },
  stopped: { level: "info", text: "The bridge has stopped in good order.", fields: {} },
  "no-access-control": {
    level: "warn",
    text: "Others than this machine can reach the bridge, directly or through a trusted proxy, and everybody is let in.",
    fields: { listen: "Where it listens." },
  },
  "descriptors-short": {
    level: "warn",
    text: "Hardly a descriptor is left: clients are refused until others go. Raise the process's limit (`LimitNOFILE`).",
    fields: { most: "How many the process may have." },
  },
  "internal-error": {
    level: "error",
    text: "The bridge made a mistake. Please report it, with this line.",
    fields: { reason: "The error's message.", stack: "Where it came from." },
  },

  "tls-reloaded": { level: "info", text: "New certificates are in use.", fields: {} },
  "tls-reload-failed": {
    level: "error",
    text: "The new certificates cannot be used: the old ones stay.",
    fields: { reason: "What is wrong with them." },
  },
  "notify-failed": {
    level: "warn",
    text: "systemd could not be told of the bridge's state.",
    fields: { reason: "What went wrong." },
  },

  "log-lines-left-out": {
    level: "warn",
    text: "Guests and clients caused more lines than `limits.logRate` allows.",
    fields: { lines: "How many were left out since the last such line." },
  },

  // Hand-over to another process.
  "hand-over-begun": {
    level: "info",
    text: "A successor asked for everything: clients are sent away.",
    fields: {},
  },
  "handed-over": {
    level: "info",
    text: "The successor has everything; this process ends.",
    fields: { milliseconds: "How long it took." },
  },
  "hand-over-refused": {
    level: "warn",
    text: "A successor was refused; this bridge goes on.",
    fields: { reason: "Why." },
  },
  "hand-over-failed": {
    level: "error",
    text: "A hand-over failed; this bridge goes on.",
    fields: { reason: "What went wrong." },
  },
  "hand-over-unavailable": {
    level: "error",
    text: "A successor cannot offer itself to one of its own; it goes on without.",
    fields: { reason: "What went wrong." },
  },
  "guest-not-inherited": {
    level: "warn",
    text: "The predecessor's guest cannot be gone on with, as it is configured now: its frontend has to connect again.",
    fields: {},
  },
  "guest-released": {
    level: "warn",
    text: "The predecessor had a guest that is not configured any more: it was let go.",
    fields: {},
  },

  // Guests.
  "guest-state": {
    level: "info",
    text: "A guest is in another state.",
    fields: { state: "As in `/api/v1/guests`.", generation: "Number of its attachment." },
  },
  "frontend-connected": { level: "info", text: "A frontend has connected.", fields: {} },
  "frontend-gone": { level: "info", text: "A frontend has closed its connection.", fields: {} },
  "frontend-refused": {
    level: "warn",
    text: "A request of the frontend was refused; the connection goes on.",
    fields: frontend,
  },
  "frontend-closed": {
    level: "warn",
    text: "The connection of a frontend was ended for what it had sent.",
    fields: frontend,
  },
  "transport-error": {
    level: "warn",
    text: "The socket of a guest cannot be used at the moment; it is tried again.",
    fields: frontend,
  },
  "poller-error": {
    level: "warn",
    text: "What was done for an event of a guest's descriptors failed.",
    fields: frontend,
  },
  "memory-not-sealed": {
    level: "warn",
    text: "A frontend can make the guest's memory shorter, which would end the bridge, or an isolated guest's process.",
    fields: { advice: "What to do." },
  },
  "guest-process-exited": {
    level: "warn",
    text: "The process of an isolated guest has ended. Another one is started.",
    fields: { pid: "The process." },
    maybe: {
      code: "Its exit code.",
      signal: "The signal that ended it; SIGBUS where the guest's memory was taken away.",
      stderr: "What it said last.",
    },
  },
  "queue-broken": {
    level: "warn",
    text: "A guest broke a queue. It is stopped until the guest resets the device.",
    fields: { queue: "`response` or `request`.", code: "Which rule it broke.", reason: "In words." },
  },
  "name-service-off": {
    level: "warn",
    text: "A guest has not negotiated name service: it hears nothing of the endpoints that the host declares.",
    fields: { endpoints: "How many it does not hear of." },
  },
  "guest-service": {
    level: "warn",
    text: "A service of an emulated guest made a mistake.",
    fields: { code: "What it did.", reason: "In words." },
  },
  "undelivered-at-stop": {
    level: "warn",
    text: "Messages that clients had sent could not be delivered before the stop.",
    fields: { messages: "How many." },
  },

  // Clients.
  "client-connected": { level: "debug", text: "A client opened a WebSocket.", fields: client },
  "client-gone": {
    level: "debug",
    text: "A WebSocket ended, and not for what the client did.",
    fields: { ...client, cause: "As in the metric `rpmsg_connections_closed_total`." },
  },
  "client-closed": {
    level: "info",
    text: "A client was closed for what it did, or did not do.",
    fields: { code: "The cause, as in the metric `rpmsg_connections_closed_total`.", ...client },
  },
  "upgrade-refused": {
    level: "debug",
    text: "A client was refused before it had a WebSocket.",
    fields: { code: "As in the answer.", peer: client.peer, path: client.path },
  },
} as const satisfies Record<string, LogEvent>;

export type LogEventName = keyof typeof logEvents;

/** The fields that an event has. */
export type LogFields<Name extends LogEventName> = {
  readonly [Field in keyof (typeof logEvents)[Name]["fields"]]: string | number;
} & { readonly [Field in keyof Maybe<(typeof logEvents)[Name]>]?: string | number };

type Maybe<Event> = Event extends { maybe: infer Fields } ? Fields : unknown;
