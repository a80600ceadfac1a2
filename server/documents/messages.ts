import type { z } from "zod";
import type { EventName } from "../../schemas/index.ts";
import {
  ClientFrame,
  events,
  MuxClientFrame,
  MuxServerFrame,
  muxHeader,
  ServerFrame,
} from "../../schemas/index.ts";
import { markdownTable } from "./codes.ts";
import {
  eventTexts,
  jsonClientTexts,
  jsonServerTexts,
  muxClientTexts,
  muxServerTexts,
} from "./frame-texts.ts";
import type { SchemaSet } from "./schema-set.ts";

const BYTES = "application/octet-stream";
const binary = { type: "string", format: "binary" };

export type Message = Readonly<Record<string, unknown>>;

/** What goes over a kind of channel, by name. */
export interface MessageSet {
  readonly client: Readonly<Record<string, Message>>;
  readonly server: Readonly<Record<string, Message>>;
}

/** The messages of all kinds of channels, as AsyncAPI has them. */
export function messageSets(set: SchemaSet) {
  const client = (name: string, union: Union, texts: Texts) => frames(set, name, union, "input", texts);
  const server = (name: string, union: Union, texts: Texts) => frames(set, name, union, "output", texts);
  const raw = { payload: rawMessage };
  return {
    raw: { client: raw, server: raw },
    json: {
      client: client("ClientFrame", ClientFrame, jsonClientTexts),
      server: server("ServerFrame", ServerFrame, jsonServerTexts),
    },
    mux: {
      client: { ...client("MuxClientFrame", MuxClientFrame, muxClientTexts), data: muxData },
      server: { ...server("MuxServerFrame", MuxServerFrame, muxServerTexts), data: muxMessage },
    },
    events: { client: {}, server: eventMessages(set) },
  } satisfies Record<string, MessageSet>;
}

interface Union {
  readonly options: readonly z.ZodType[];
}

type Texts = Readonly<Record<string, { summary: string; examples: readonly unknown[] }>>;

/** The frames of a union, which has a text for each. */
function frames(
  set: SchemaSet,
  name: string,
  { options }: Union,
  io: "input" | "output",
  texts: Texts,
): Record<string, Message> {
  const messages: Record<string, Message> = {};
  for (const frame of options as readonly z.ZodObject<{ type: z.ZodLiteral<string> }>[]) {
    const type = frame.shape.type.value;
    const { summary = "", examples = [] } = texts[type] ?? {};
    const payload = set.add(`${name}.${type}`, frame, io);
    messages[type] = { name: type, title: type, summary, payload, examples: named(examples) };
  }
  return messages;
}

function eventMessages(set: SchemaSet): Record<string, Message> {
  const messages: Record<string, Message> = {};
  for (const name of Object.keys(events) as EventName[]) {
    const { summary, examples } = eventTexts[name];
    const headers = {
      type: "object",
      description: "Fields of the event other than its data.",
      properties: {
        event: { const: name },
        id: { type: "string", description: "For `Last-Event-ID`. Events of the current state have none." },
      },
      required: ["event"],
    };
    const payload = set.of(events[name], "output");
    messages[name] = { name, title: name, summary, headers, payload, examples: named(examples) };
  }
  return messages;
}

function named(examples: readonly unknown[]): object[] {
  return examples.map((payload, i) => ({ name: `example${i + 1}`, payload }));
}

const rawMessage: Message = {
  name: "payload",
  title: "payload",
  summary: "One RPMsg payload, at most the MTU of the endpoint.",
  description: "The bridge sends binary messages. A text message of the client is sent as its UTF-8 bytes.",
  contentType: BYTES,
  payload: binary,
  examples: named(["hello"]),
};

/** Binary frames have no schema but a layout. */
const muxData = binaryFrame(
  "A binary frame: a message to the guest.",
  {
    subscription: "the subscription",
    address: "the destination; 0xffffffff for the endpoint's peer",
    number: "number of the message, or 0; with a number the result is told",
  },
  "01000000 ffffffff 07000000 68656c6c6f",
);
const muxMessage = binaryFrame(
  "A binary frame: a message of the guest.",
  {
    subscription: "the subscription",
    address: "the address that it came from",
    number: "counts the subscription's messages from 1 on, dropped ones too; after 2^32 - 1 comes 1",
  },
  "01000000 00040000 01000000 68656c6c6f",
);

function binaryFrame(
  summary: string,
  meanings: Record<Exclude<keyof typeof muxHeader, "size">, string>,
  example: string,
): Message {
  const { size, ...offsets } = muxHeader;
  const fields = Object.entries(offsets).map(([field, offset]) => ({
    field,
    offset,
    type: "uint32, little endian",
    meaning: meanings[field as keyof typeof meanings],
  }));
  const text = `A header of ${size} bytes, then the payload. In hexadecimal digits: \`${example}\``;
  return {
    name: "data",
    title: "data",
    summary,
    description: `${text}\n\n${markdownTable(fields)}`,
    contentType: BYTES,
    payload: binary,
    "x-header": { bytes: size, fields },
    "x-example-hex": example,
  };
}
