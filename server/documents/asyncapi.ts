import {
  JsonAnnounceQuery,
  JsonQuery,
  muxProtocol,
  RawAnnounceQuery,
  RawQuery,
} from "../../schemas/index.ts";
import { closeCodes, errorTable, markdownTable } from "./codes.ts";
import type { MessageSet } from "./messages.ts";
import { messageSets } from "./messages.ts";
import type { JsonSchema } from "./schema-set.ts";
import { SchemaSet } from "./schema-set.ts";

/** A way to the bridge. */
interface Channel {
  /** What goes over it. */
  readonly messages: keyof ReturnType<typeof messageSets>;
  readonly address: string;
  readonly title: string;
  readonly description: string;
  readonly parameters?: Readonly<Record<string, object>>;
  readonly bindings?: object;
}

const bearer = {
  type: "http",
  scheme: "bearer",
  description:
    "A token, or once a ticket, as `Authorization: Bearer` or, for WebSockets of browsers, as `rpmsg.bearer.TOKEN` in " +
    "`Sec-WebSocket-Protocol`, beside the subprotocol. Where the bridge was started without tokens, none is needed.",
};
const security = [{ $ref: "#/components/securitySchemes/bearer" }];

/** Everything that goes over WebSockets and server-sent events, in AsyncAPI 3. */
export function asyncApiDocument(): object {
  const set = new SchemaSet("draft-07");
  const sets = messageSets(set);
  const channels = Object.entries(channelsOf(set)).map(([id, channel]) => ({
    id,
    channel,
    messages: sets[channel.messages] as MessageSet,
  }));
  return {
    asyncapi: "3.0.0",
    info: {
      title: "rpmsg-bridge",
      version: "1",
      description: description(),
      license: { name: "Apache-2.0" },
    },
    defaultContentType: "application/json",
    servers: {
      websocket: { host: "127.0.0.1:8080", protocol: "ws", security },
      http: { host: "127.0.0.1:8080", protocol: "http", security },
    },
    channels: Object.fromEntries(
      channels.map(({ id, channel, messages }) => [id, describe(channel, messages)]),
    ),
    operations: Object.fromEntries(
      channels.flatMap(({ id, channel, messages }) => operations(id, channel, messages)),
    ),
    components: {
      schemas: set.components,
      securitySchemes: { bearer },
      messages: Object.fromEntries(
        Object.entries(sets).flatMap(([id, messages]) =>
          entriesOf(messages).map(([name, message]) => [`${id}.${name}`, message]),
        ),
      ),
    },
    "x-close-codes": closeCodes(),
    "x-error-codes": errorTable(),
  };
}

function channelsOf(set: SchemaSet): Record<string, Channel> {
  const guest = { description: "Name of a guest.", examples: ["demo"] };
  const endpoint = {
    description:
      "Name of an endpoint, which means its oldest holder; `{name}@{address}`, decimal or with 0x; or `~{id}`. Bytes of " +
      "a name are percent-encoded, of any value, `@` and `~` among them. The `path` of a listed endpoint is always right.",
    examples: ["echo", "echo@1024", "~e1"],
  };
  const service =
    "The client is the service `announce` of the host, which the guest is told of. It is withdrawn when the connection ends.";
  return {
    raw: {
      messages: "raw",
      address: "/ws/v1/{guest}/{endpoint}",
      title: "Raw messages",
      description:
        "Subprotocol `rpmsg.v1.raw`, or none. A WebSocket message is an RPMsg payload, both ways. There are no other " +
        "frames: what goes wrong ends the connection, and the close frame says why.",
      parameters: { guest, endpoint },
      bindings: webSocket("rpmsg.v1.raw", set.of(RawQuery, "input", "ChannelQuery")),
    },
    json: {
      messages: "json",
      address: "/ws/v1/{guest}/{endpoint}",
      title: "Messages in JSON",
      description:
        "Subprotocol `rpmsg.v1.json`: text frames with a `type`. A client whose connection broke without a close frame " +
        "may resume its session for a while, and gets what it missed.",
      parameters: { guest, endpoint },
      bindings: webSocket("rpmsg.v1.json", set.of(JsonQuery, "input", "ChannelQuery")),
    },
    rawService: {
      messages: "raw",
      address: "/ws/v1/{guest}",
      title: "A service, raw",
      description: `Subprotocol \`rpmsg.v1.raw\`, or none. ${service}`,
      parameters: { guest },
      bindings: webSocket("rpmsg.v1.raw", set.of(RawAnnounceQuery, "input", "ServiceQuery")),
    },
    jsonService: {
      messages: "json",
      address: "/ws/v1/{guest}",
      title: "A service, in JSON",
      description: `Subprotocol \`rpmsg.v1.json\`. ${service} Its session cannot be resumed.`,
      parameters: { guest },
      bindings: webSocket("rpmsg.v1.json", set.of(JsonAnnounceQuery, "input", "ServiceQuery")),
    },
    mux: {
      messages: "mux",
      address: "/ws/v1",
      title: "Many endpoints over one connection",
      description:
        `Subprotocol \`${muxProtocol}\`: control frames are JSON text, messages are binary frames with a header. Each ` +
        "subscription has credit of its own in both directions, so that none holds up another. Subscriptions outlive " +
        "resets of their guest.",
      bindings: webSocket(muxProtocol),
    },
    events: {
      messages: "events",
      address: "/api/v1/events",
      title: "Events of guests and endpoints",
      description:
        "Server-sent events: first all guests and endpoints, then `ready`, then changes. With `Last-Event-ID`, what was " +
        "missed, as far as it is known. The stream outlives resets.",
    },
  };
}

function webSocket(protocol: string, query?: JsonSchema): object {
  const headers = { type: "object", properties: { "Sec-WebSocket-Protocol": { const: protocol } } };
  return { ws: { method: "GET", headers, ...(query && { query }), bindingVersion: "0.1.0" } };
}

function describe({ messages: id, ...channel }: Channel, messages: MessageSet): object {
  return {
    ...channel,
    servers: [{ $ref: id === "events" ? "#/servers/http" : "#/servers/websocket" }],
    messages: Object.fromEntries(
      entriesOf(messages).map(([name]) => [name, { $ref: `#/components/messages/${id}.${name}` }]),
    ),
  };
}

/** The bridge is what the document is about: it receives what clients send. */
function operations(id: string, { title }: Channel, messages: MessageSet): [string, object][] {
  const parts = [
    { side: "client", action: "receive", summary: `${title}: from the client.` },
    { side: "server", action: "send", summary: `${title}: to the client.` },
  ] as const;
  return parts
    .filter(({ side }) => Object.keys(messages[side]).length > 0)
    .map(({ side, action, summary }) => [
      `${id}.${action}`,
      {
        action,
        summary,
        channel: { $ref: `#/channels/${id}` },
        messages: Object.keys(messages[side]).map((name) => ({
          $ref: `#/channels/${id}/messages/${side}.${name}`,
        })),
        ...(id === "events" && { bindings: { http: { method: "GET", bindingVersion: "0.3.0" } } }),
      },
    ]);
}

/** All messages; some types go both ways, with different frames. */
function entriesOf(messages: MessageSet): [name: string, message: object][] {
  return (["client", "server"] as const).flatMap((side) =>
    Object.entries(messages[side]).map(([name, message]): [string, object] => [`${side}.${name}`, message]),
  );
}

function description(): string {
  return [
    "RPMsg endpoints of guests, over WebSockets and server-sent events. The rest of the interface is in " +
      "[openapi.json](/openapi.json).",
    "Fields, frames and events may be added to what the bridge sends: ignore those that you do not know. What is refused " +
      "before the upgrade is answered with `application/problem+json` and a code of the table below.",
    "Close codes:",
    markdownTable(closeCodes()),
    "Error codes, with the status where they are answers of HTTP:",
    markdownTable(errorTable()),
  ].join("\n\n");
}
