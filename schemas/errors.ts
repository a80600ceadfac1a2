/**
 * Stable codes of all errors that the bridge reports, and what to do about each. HTTP answers carry them in their
 * problem, `error` frames in `code`, close frames of raw channels in the reason.
 */
export const errorAdvice = {
  // What was asked.
  "bad-request": "Mend what the text names and ask again.",
  "bad-frame": "Mend what the text names; /asyncapi.json has all frames. The connection stays open.",
  "body-too-large": "Send a shorter body: a message has at most 65,535 bytes.",
  "head-too-large": "Send a shorter address and fewer or shorter header fields: a head has at most 16 KiB.",
  "media-type-unknown": "Send application/json or application/octet-stream.",
  "not-found": "Look the path up in /openapi.json.",
  "request-timeout": "Send the whole request in time, on a new connection.",
  "upgrade-required": "Use a WebSocket client.",
  // Who asks.
  "host-unknown": "Use localhost or an address, or add the name to `hosts` of the configuration.",
  "origin-forbidden": "Add the page's origin to `origins` of the configuration.",
  unauthorized:
    "Show a token of the bridge, as `Authorization: Bearer TOKEN`; a ticket is good once, for 30 seconds.",
  forbidden:
    "Send to the channel's peer, or to an address that has sent to this channel; 53 is never allowed. For all else use " +
    "a token that has the right.",
  "read-only": "The bridge was started read-only: it sends nothing to guests.",
  "rate-limited": "Wait as many seconds as Retry-After says.",
  "too-many-connections":
    "Close connections that are not needed, or raise `limits.connectionsPerAddress` or `limits.connectionsPerToken`.",
  // Which guest and endpoint.
  "guest-unknown": "Look the guest's name up in /api/v1/guests.",
  "endpoint-unknown": "Look the endpoint's path up in /api/v1/endpoints.",
  "endpoint-of-guest": "Only the guest withdraws what it has announced.",
  "endpoint-in-use":
    "An exclusive client is there: wait for its end, or replace it with share=exclusive&takeover=1.",
  "local-in-use":
    "Choose another local address, or none; clients that all say share=shared may have one together.",
  "address-in-use": "Choose another address, or none.",
  "already-announced": "The guest knows this name at this address already: use the endpoint that there is.",
  "name-service-off":
    "The guest has not negotiated name service: declare the endpoint with ns none and addresses.",
  "name-invalid": "A service name has 1 to 31 bytes, none of them zero.",
  "too-many-endpoints": "Withdraw endpoints that are not needed, or raise `limits.declaredEndpoints`.",
  "no-address": "All local addresses are taken: close channels that are not needed.",
  // What became of a message.
  "too-large": "Send at most `mtu` bytes.",
  "no-peer":
    "The guest has not spoken on this endpoint yet: wait for its first message, or, in frames, give `dst`.",
  "no-buffer": "The guest took no message in time: send again later, or with a longer timeout.",
  "queue-full": "Too much waits for the guest: wait for the results of earlier messages.",
  "guest-gone": "The guest was reset: connect again, and send again what may come twice.",
  "endpoint-gone": "The endpoint was withdrawn: connect again when it is listed.",
  "no-reply": "The message was sent and nothing came back in time.",
  // Subscriptions of a mux connection.
  "subscription-unknown": "Subscribe first; numbers are the client's choice.",
  "subscription-in-use": "Choose a number that is free.",
  "too-many-subscriptions": "Use another connection.",
  replaced: "Another client took the endpoint over.",
  "slow-reader": "Read faster, grant more credit, or choose what is to be dropped with slow=.",
  // The bridge itself.
  overloaded:
    "The bridge has as much to do as it may have: come back later, or raise the limit that the text names.",
  draining: "The bridge is stopping: connect again later.",
  internal: "The bridge made a mistake; its log says which.",
} as const;

export type ErrorCode = keyof typeof errorAdvice;

/** All codes, for schemas. */
export const errorCodes = Object.keys(errorAdvice) as [ErrorCode, ...ErrorCode[]];
