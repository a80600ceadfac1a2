import type {
  ClientFrameInput,
  EventData,
  EventName,
  MuxClientFrame,
  MuxServerFrame,
  ServerFrame,
} from "../../schemas/index.ts";

/** What a message is for, and examples of it. */
interface Text<Payload> {
  readonly summary: string;
  readonly examples: readonly [Payload, ...Payload[]];
}

type Texts<Frame extends { type: string }> = {
  readonly [Type in Frame["type"]]: Text<Extract<Frame, { type: Type }>>;
};

const guest = { guest: "demo", generation: 1 } as const;
const states = { endpointState: "connected", guestState: "attached" } as const;
const down = { state: "down", reason: "reset", endpointState: "declared", guestState: "detached" } as const;
const instance = "0c5fd6e2-6d8b-4f0e-9f0c-6b8f5f0d7a11";

/** `rpmsg.v1.json`, from the client. */
export const jsonClientTexts: Texts<ClientFrameInput> = {
  send: {
    summary:
      "A message to the guest. With an id the bridge answers `sent` or `error`; without one only errors are told.",
    examples: [
      { type: "send", data: "hello" },
      { type: "send", id: 1, data: "AAEC/w==", encoding: "base64", timeout: 2000 },
    ],
  },
  credit: {
    summary:
      "More messages may come. For connections with `credit=` in their path; for others it means nothing.",
    examples: [{ type: "credit", messages: 128 }],
  },
  ping: { summary: "Asks for a `pong`.", examples: [{ type: "ping" }] },
};

/** `rpmsg.v1.json`, from the bridge. */
export const jsonServerTexts: Texts<ServerFrame> = {
  hello: {
    summary: "The first frame of a connection: what it is connected to.",
    examples: [
      {
        type: "hello",
        protocol: "rpmsg.v1.json",
        ...guest,
        endpoint: "echo",
        id: "e1",
        local: 1024,
        ...states,
        mtu: 496,
        instance,
        session: "3kTfn6mDq1kZ0F1y2dQe1A",
        resumed: false,
      },
    ],
  },
  message: {
    summary: "A message of the guest.",
    examples: [
      { type: "message", seq: 1, src: 1024, data: "hello", encoding: "utf8" },
      { type: "message", seq: 2, src: 1024, data: "AAEC/w==", encoding: "base64" },
    ],
  },
  sent: {
    summary: "The message with this id is in the guest's response queue.",
    examples: [{ type: "sent", id: 1 }],
  },
  error: {
    summary:
      "A frame was not understood, or a message not delivered: then with its id, where it had one. The connection " +
      "stays open.",
    examples: [
      { type: "error", id: 1, code: "too-large", message: "message of 497 bytes, the most is 496" },
      {
        type: "error",
        code: "bad-frame",
        message: "data: Invalid input: expected string, received undefined",
      },
    ],
  },
  dropped: {
    summary:
      "So many messages of the guest were dropped since the last such frame, because the client was too slow for them.",
    examples: [{ type: "dropped", count: 17 }],
  },
  state: {
    summary: "The endpoint or its guest changed. After `down` the connection is closed.",
    examples: [
      { type: "state", state: "up", endpointState: "connected", guestState: "suspended", generation: 1 },
      { type: "state", ...down, generation: 2 },
    ],
  },
  pong: { summary: "The answer to `ping`.", examples: [{ type: "pong" }] },
};

/** `rpmsg.v1.mux`, from the client. */
export const muxClientTexts: Texts<MuxClientFrame> = {
  subscribe: {
    summary: "Opens an endpoint under a number. The bridge answers `subscribed` or `error`.",
    examples: [
      { type: "subscribe", sub: 1, path: "/ws/v1/demo/echo" },
      { type: "subscribe", sub: 2, path: "/ws/v1/demo/sensor?share=shared", credit: 65_536 },
    ],
  },
  unsubscribe: {
    summary: "Closes a subscription. The bridge answers `unsubscribed`.",
    examples: [{ type: "unsubscribe", sub: 1 }],
  },
  credit: {
    summary: "More messages may come, so many bytes; 16 for each message included.",
    examples: [{ type: "credit", sub: 2, bytes: 16_384 }],
  },
  ping: { summary: "Asks for a `pong`.", examples: [{ type: "ping" }] },
};

/** `rpmsg.v1.mux`, from the bridge. */
export const muxServerTexts: Texts<MuxServerFrame> = {
  hello: {
    summary: "The first frame of a connection.",
    examples: [{ type: "hello", protocol: "rpmsg.v1.mux", instance }],
  },
  subscribed: {
    summary: "Messages may be sent now, up to the credit.",
    examples: [
      {
        type: "subscribed",
        sub: 1,
        ...guest,
        endpoint: "echo",
        id: "e1",
        local: 1024,
        ...states,
        mtu: 496,
        credit: 65_536,
      },
    ],
  },
  credit: {
    summary: "More may be sent, so many bytes; 16 for each message included.",
    examples: [{ type: "credit", sub: 1, bytes: 16_384 }],
  },
  sent: {
    summary: "The message with this number is in the guest's response queue.",
    examples: [{ type: "sent", sub: 1, id: 7 }],
  },
  error: {
    summary:
      "A frame was not understood, a subscription not opened, or a message not delivered: then with its number, where " +
      "it had one. The connection stays open.",
    examples: [
      { type: "error", sub: 3, code: "endpoint-unknown", message: 'guest "demo" has no such endpoint' },
      { type: "error", sub: 1, id: 7, code: "too-large", message: "message of 497 bytes, the most is 496" },
    ],
  },
  dropped: {
    summary:
      "So many messages of the guest were dropped since the last such frame, because the client was too slow for them.",
    examples: [{ type: "dropped", sub: 2, count: 17 }],
  },
  state: {
    summary:
      "The endpoint or its guest changed. After `down` the subscription waits; with `up` after it come a new " +
      "`subscribed` and fresh credit in both directions.",
    examples: [
      { type: "state", sub: 1, ...down, generation: 2 },
      { type: "state", sub: 1, state: "up", ...states, generation: 2 },
    ],
  },
  unsubscribed: {
    summary: "The subscription is over: as asked, or for the reason in `code`.",
    examples: [
      { type: "unsubscribed", sub: 1 },
      { type: "unsubscribed", sub: 2, code: "slow-reader" },
    ],
  },
  pong: { summary: "The answer to `ping`.", examples: [{ type: "pong" }] },
};

/** `/api/v1/events`. */
export const eventTexts: { readonly [Name in EventName]: Text<EventData<Name>> } = {
  guest: {
    summary: "A guest, as it is now.",
    examples: [
      {
        name: "demo",
        kind: "emulated",
        state: "attached",
        generation: 1,
        features: ["RPMSG_F_NS"],
        queues: { response: 256, request: 256 },
        waiting: { response: 256, request: 0 },
        mtu: 496,
        counters: {
          messagesToGuest: 1,
          bytesToGuest: 5,
          messagesFromGuest: 6,
          bytesFromGuest: 205,
          malformed: 0,
          unknownAddress: 0,
          nameServiceOff: 0,
          nameServiceMalformed: 0,
          nameServiceLimit: 0,
          nameServiceIgnored: 0,
          brokenQueues: 0,
          frontendErrors: 0,
        },
      },
    ],
  },
  endpoint: {
    summary: "An endpoint, new or changed. Counters alone are no change.",
    examples: [
      {
        id: "e1",
        guest: "demo",
        name: "echo",
        address: 1024,
        origin: "guest",
        ns: "up",
        peer: 1024,
        state: "connected",
        generation: 1,
        mtu: 496,
        clients: 0,
        path: "/ws/v1/demo/echo",
        counters: {
          accepted: 1,
          messagesToGuest: 1,
          bytesToGuest: 5,
          undelivered: 0,
          unconfirmed: 0,
          messagesFromGuest: 1,
          bytesFromGuest: 5,
          noClient: 0,
          messagesToClients: 1,
          dropped: 0,
        },
      },
    ],
  },
  "endpoint-removed": {
    summary: "An endpoint is gone.",
    examples: [{ id: "e1", guest: "demo", name: "echo", generation: 1 }],
  },
  ready: {
    summary: "The current state is complete; from now on come changes.",
    examples: [{ instance }],
  },
};
