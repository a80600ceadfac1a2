const slow =
  "What happens when more waits for the client than is configured, usually 1 MiB. close: it is closed with 1013; pause: " +
  "the guest waits for it, usually 2 s, then it is closed with 1013; drop-oldest, drop-newest: messages are dropped and " +
  "counted.";

/**
 * What the fields of the documents mean: by schema and field, or by field alone where all schemas mean the same. The
 * schemas say the rest.
 */
export const fieldTexts = {
  // Guests and endpoints.
  "Guest.name": "Name of the guest, as it is configured.",
  "Guest.kind": "`emulated`, `vhost-user`, and others to come.",
  "Guest.state":
    "waiting: no frontend; detached: a frontend, its driver not running; suspended: both rings stopped, as in a paused " +
    "virtual machine; attached: the driver runs.",
  "Guest.features": "Names of the negotiated device features; null where the kind of guest has none.",
  "Guest.queues": "Sizes of the queues in entries; null where none are set up.",
  "Guest.waiting":
    "What waits in the queues now: buffers of the guest for messages to it (response), and messages of it that the bridge " +
    "has not taken (request). Null while they do not run.",
  "Guest.mtu": "Longest message to the guest, in bytes.",
  "Endpoint.id": "Chosen by the bridge, never used again while it lives.",
  "Endpoint.name": "For people: bytes that are not UTF-8 show as U+FFFD.",
  "Endpoint.address":
    "Where it is: in the guest, or for one of the host in the bridge. Null where the guest has yet to announce it.",
  "Endpoint.origin": "Which side has it.",
  "Endpoint.peer": "Where messages go; null while it is not known.",
  "Endpoint.state":
    "declared: the other side has not been told, or has not told us, of it; announced: the guest was told; connected: " +
    "the peer's address is known.",
  "Endpoint.clients": "Clients that are connected, or may still resume their session.",
  "Endpoint.path": "Where to connect; it stays the same while the endpoint lives.",
  guest: "Name of the guest.",
  generation: "Number of the guest's attachment; it grows with every reset.",
  mtu: "Longest message, in bytes.",
  instance: "The bridge; it survives a hand-over to a new process.",
  guests: "All guests.",
  endpoints: "In the order in which they came.",
  next: "Where the list goes on: the id for `after`; null at its end.",
  "EndpointRemoved.id": "Id of the endpoint.",
  "EndpointRemoved.name": "Name of the endpoint, as it was listed.",

  // Credentials.
  ticket: "A bearer that is good once.",
  token: "A bearer. It is shown here only.",
  expires: "When it ends.",

  // What a token may do.
  "Access.token": "Name of the token; null where the bridge asks for none.",
  "Access.expires": "When the credential of this request ends; null where it does not by itself.",
  "Access.readOnly": "The bridge was started read-only: nobody has `write` or `announce`.",
  "Access.rights": "What is not here is refused.",

  // Counters, which are metrics too.
  messagesToGuest: "Messages put in the response queue.",
  bytesToGuest: "Bytes of the messages put in the response queue.",
  messagesFromGuest: "Messages that the guest sent.",
  bytesFromGuest: "Bytes of the messages that the guest sent.",
  "EndpointCounters.accepted": "Messages taken from clients.",
  "EndpointCounters.undelivered": "Messages given up, or dropped at a reset, before they were sent.",
  "EndpointCounters.unconfirmed":
    "Messages sent whose buffer the guest had not given back when it was reset: it may not have read them.",
  "EndpointCounters.noClient": "Messages of the guest that no client was there to take.",
  "EndpointCounters.messagesToClients":
    "Messages passed on to clients; one that goes to several counts for each.",
  "EndpointCounters.dropped": "Messages that clients were too slow for.",
  "GuestCounters.malformed":
    "Messages of the guest with a header that does not fit its buffer, or without one.",
  "GuestCounters.unknownAddress": "Messages of the guest to an address that nobody has.",
  "GuestCounters.nameServiceOff": "Name-service messages while the feature is not negotiated.",
  "GuestCounters.nameServiceMalformed": "Name-service messages of a wrong length or address.",
  "GuestCounters.nameServiceLimit": "Announcements of the guest beyond the limit.",
  "GuestCounters.nameServiceIgnored": "Announcements of what is there, withdrawals of what is not.",
  "GuestCounters.brokenQueues": "Queues that the guest broke.",
  "GuestCounters.frontendErrors":
    "Requests of the frontend that were refused, and connections that ended for a mistake of it.",

  // What is asked over HTTP.
  "EndpointDeclaration.name": "1 to 31 bytes of UTF-8, none of them zero.",
  ns:
    "Which side announces it. none: nobody, the addresses are agreed on; down: the host to the guest; up: the guest to " +
    "the host; both: the host does, and what the guest announces under this name is the other half of it.",
  "EndpointDeclaration.address":
    "The bridge's own address; with ns up, the guest's. The bridge picks or takes any where there is none. With ns none " +
    "it has to be given.",
  "EndpointDeclaration.peer":
    "With ns none: the guest's address; without it that of the guest's first message.",
  "EndpointDeclaration.local": "With ns up: the local address of clients that name none.",
  "MessageSend.wait": "Milliseconds to wait for a reply; without it none is waited for.",
  "MessageSend.local":
    "The local address to send from; without it one of its own for an endpoint of the guest, the service's for one of " +
    "the host.",
  "MessageSent.result": "It is in the guest's response queue.",
  "Params.guest": "Name of a guest.",
  "Params.id": "Id of an endpoint, as it is listed.",
  "Query.guest": "Endpoints of this guest only.",
  "Query.id": "The endpoint with this id only.",
  "Query.name": "Endpoints of this name only, as it is listed.",
  "Query.origin": "Endpoints of this side only.",
  "Query.address": "The endpoint at this address only, decimal or with 0x.",
  "Query.limit": "Most endpoints of an answer.",
  "Query.after": "The list goes on behind the endpoint with this id.",
  "Query.timeout": "As in a JSON body.",
  "Query.wait": "As in a JSON body.",
  "Query.local": "As in a JSON body.",
  "Headers.last-event-id": "Id of the last event that came, to go on behind it.",
  "Problem.type": "There is no page about it.",
  "Problem.title": "The status in words.",
  "Problem.status": "The status of the answer.",
  "Problem.code": "Stable: programs go by it.",
  "Problem.detail": "What went wrong, for people.",
  status: "In a word.",

  // What is asked in the URL of a WebSocket.
  "ChannelQuery.share":
    "private: an own local address, replies to it come to this client alone (the usual one for endpoints of the guest); " +
    "shared: one for all such clients (the usual one for those of the host); exclusive: the endpoint's only client.",
  "ChannelQuery.takeover": "With share=exclusive: 1 ends the other clients of the endpoint, with 4003.",
  "ChannelQuery.local": "The channel's local address, decimal or with 0x.",
  "ChannelQuery.slow": slow,
  "ChannelQuery.origin": "Which of two endpoints of one name: the guest's or the host's.",
  "ChannelQuery.encoding": "Encoding of all messages to the client.",
  "ChannelQuery.resume": "The session to go on with, from `hello`.",
  "ChannelQuery.after": "With resume: the last `seq` that came.",
  "ChannelQuery.credit":
    "Messages that may come until a `credit` frame grants more; what waits does so under `slow`. Without it any number.",
  "ServiceQuery.announce": "Name of the service that the client is, 1 to 31 bytes of UTF-8.",
  "ServiceQuery.local": "The service's address, decimal or with 0x.",
  "ServiceQuery.slow": slow,
  "ServiceQuery.encoding": "Encoding of all messages to the client.",

  // Frames.
  protocol: "The subprotocol.",
  endpoint: "Name of the endpoint, as it is listed.",
  local: "The channel's own address.",
  endpointState: "State of the endpoint, as it is listed.",
  guestState: "State of the guest, as it is listed.",
  session: "For `?resume=`, after a connection that broke.",
  resumed: "The session that was asked for goes on; its missed messages follow.",
  seq: "Counts the channel's messages from 1 on, dropped ones too.",
  src: "The address that it came from.",
  data: "The bytes of the message, in the encoding.",
  encoding: "utf8, base64 or hex. Of messages of the guest: utf8 where they are valid UTF-8, else base64.",
  "ClientFrame.send.encoding": "Of `data`.",
  "ClientFrame.credit.messages": "So many messages more.",
  "MessageSend.encoding": "Of `data`, and unless it is utf8 of the reply.",
  "ServerFrame.hello.id": "Id of the endpoint.",
  "MuxServerFrame.subscribed.id": "Id of the endpoint.",
  "ClientFrame.send.id": "Chosen by the client. With an id the result is told.",
  dst: "The channel's peer, or an address that a message came from; without it the endpoint's peer.",
  timeout:
    "Milliseconds that the message may wait for the guest; without it what is configured, usually 15000.",
  id: "The message that it is about.",
  code: "Stable: programs go by it.",
  message: "What went wrong and what to do, for people.",
  count: "How many.",
  state: "up, or down.",
  reason: "Given when the state is down.",
  sub: "Number of the subscription, chosen by the client.",
  credit: "Bytes that the client may send; a message costs its payload and 16.",
  "MuxClientFrame.subscribe.credit":
    "Bytes that may come, 16 for each message included; without it any number.",
  "MuxClientFrame.subscribe.path": "As in the URL of a raw channel, with its query.",
  bytes: "So many bytes more.",
  "MuxServerFrame.unsubscribed.code": "Why, where the client did not ask for it.",
  type: "Kind of the frame.",
} as const satisfies Record<string, string>;

/** What a field means; the schema's own words first. */
export function fieldText(schema: string, field: string): string | undefined {
  const texts: Readonly<Record<string, string | undefined>> = fieldTexts;
  return texts[`${schema}.${field}`] ?? texts[field];
}
