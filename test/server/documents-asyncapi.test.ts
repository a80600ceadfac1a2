import { Parser } from "@asyncapi/parser";
import { Ajv } from "ajv";
import { describe, expect, test } from "vitest";
import type { z } from "zod";
import {
  ClientFrame,
  closeCode,
  errorAdvice,
  events,
  JsonAnnounceQuery,
  JsonQuery,
  MuxClientFrame,
  MuxServerFrame,
  muxHeader,
  RawAnnounceQuery,
  RawQuery,
  ServerFrame,
} from "../../schemas/index.ts";
import { testBridge } from "./support.ts";

interface Message {
  readonly summary: string;
  readonly payload: object;
  readonly examples?: readonly { payload: unknown }[];
  readonly "x-example-hex"?: string;
}

interface Channel {
  readonly address: string;
  readonly messages: Readonly<Record<string, { $ref: string }>>;
  readonly bindings?: { ws: { query?: { properties: Record<string, object> } } };
}

interface Document {
  readonly info: { description: string };
  readonly channels: Readonly<Record<string, Channel>>;
  readonly components: {
    readonly messages: Readonly<Record<string, Message>>;
    readonly schemas: Readonly<Record<string, Record<string, unknown>>>;
  };
  readonly "x-close-codes": readonly { code: number; description: string }[];
  readonly "x-error-codes": readonly { code: string; status?: number; advice: string }[];
}

async function documented(url: string): Promise<Document> {
  return (await (await fetch(`${url}/asyncapi.json`)).json()) as Document;
}

function typesOf(union: { options: readonly z.ZodType[] }): string[] {
  return (union.options as readonly z.ZodObject<{ type: z.ZodLiteral<string> }>[]).map(
    ({ shape }) => shape.type.value,
  );
}

/** The unions of frames, and where the document has them. */
const unions = [
  ["json.client", ClientFrame],
  ["json.server", ServerFrame],
  ["mux.client", MuxClientFrame],
  ["mux.server", MuxServerFrame],
] as const;

describe("/asyncapi.json", () => {
  test("the parser of AsyncAPI finds nothing wrong", async () => {
    const { url } = await testBridge();
    const text = await (await fetch(`${url}/asyncapi.json`)).text();
    const { document, diagnostics } = await new Parser().parse(text);
    // That there is a version 3.1 by now.
    expect(diagnostics.filter(({ code }) => code !== "asyncapi-latest-version")).toEqual([]);
    expect(document?.version()).toBe("3.0.0");
    expect(document?.channels().length).toBe(6);
  }, 60_000);

  test("has every frame and event, and no other", async () => {
    const { url } = await testBridge();
    const { components } = await documented(url);
    expect(Object.keys(components.messages).toSorted()).toEqual(
      [
        ...unions.flatMap(([name, union]) => typesOf(union).map((type) => `${name}.${type}`)),
        ...Object.keys(events).map((name) => `events.server.${name}`),
        "raw.client.payload",
        "raw.server.payload",
        "mux.client.data",
        "mux.server.data",
      ].toSorted(),
    );
    for (const { summary } of Object.values(components.messages)) expect(summary).toMatch(/^[A-Z].*\.$/s);
  });

  test("has all channels, with their query", async () => {
    const { url } = await testBridge();
    const { channels } = await documented(url);
    const keys = ({ shape }: { shape: object }) => Object.keys(shape).toSorted();
    expect(
      Object.entries(channels).map(([id, { address, bindings }]) => [
        id,
        address,
        Object.keys(bindings?.ws.query?.properties ?? {}).toSorted(),
      ]),
    ).toEqual([
      ["raw", "/ws/v1/{guest}/{endpoint}", keys(RawQuery)],
      ["json", "/ws/v1/{guest}/{endpoint}", keys(JsonQuery)],
      ["rawService", "/ws/v1/{guest}", keys(RawAnnounceQuery)],
      ["jsonService", "/ws/v1/{guest}", keys(JsonAnnounceQuery)],
      ["mux", "/ws/v1", []],
      ["events", "/api/v1/events", []],
    ]);
    expect(Object.keys(channels["jsonService"]?.messages ?? {})).toEqual(
      Object.keys(channels["json"]?.messages ?? {}),
    );
  });

  test("has every close code and every error code, for people too", async () => {
    const { url } = await testBridge();
    const { info, ...document } = await documented(url);
    const codes = document["x-close-codes"].map(({ code }) => code);
    expect(codes).toEqual([...Object.values(closeCode), 1002, 1007].toSorted((a, b) => a - b));
    expect(document["x-error-codes"].map(({ code, advice }) => [code, advice])).toEqual(
      Object.entries(errorAdvice),
    );
    expect(document["x-error-codes"].find(({ code }) => code === "no-buffer")?.status).toBe(504);
    for (const { code, description } of document["x-close-codes"]) {
      expect(info.description).toContain(`| ${code} | ${description} |`);
    }
    for (const [code, advice] of Object.entries(errorAdvice)) {
      expect(info.description).toMatch(new RegExp(`^\\| ${code} \\| \\d* \\| `, "m"));
      expect(info.description).toContain(`| ${advice} |`);
    }
  });

  test.each(unions)(
    "every frame of %s has examples that the bridge would take or give",
    async (name, union) => {
      const { url } = await testBridge();
      const { components } = await documented(url);
      for (const type of typesOf(union)) {
        const examples = components.messages[`${name}.${type}`]?.examples ?? [];
        expect([type, examples.length]).not.toEqual([type, 0]);
        for (const { payload } of examples) {
          expect(union.parse(payload)).toMatchObject(payload as object);
          expect(payload).toMatchObject({ type });
        }
      }
    },
  );

  test("the examples of events are as the schemas say", async () => {
    const { url } = await testBridge();
    const { components } = await documented(url);
    for (const [name, schema] of Object.entries(events)) {
      const examples = components.messages[`events.server.${name}`]?.examples ?? [];
      expect(examples.length).toBeGreaterThan(0);
      for (const { payload } of examples) expect(schema.strict().parse(payload)).toEqual(payload);
    }
  });
});

/** Validates what a side sends against the document; a field that it does not have is an error. */
function validatorOf({ components }: Document): (name: string, value: unknown) => void {
  const ajv = new Ajv({ strict: true, validateFormats: false, allErrors: true });
  for (const [name, schema] of Object.entries(components.schemas)) {
    ajv.addSchema({ additionalProperties: false, ...schema }, `#/components/schemas/${name}`);
  }
  return (name, value) => {
    const message = components.messages[name];
    if (message === undefined) throw new Error(`no message ${name}`);
    const validate = ajv.compile(message.payload);
    expect([name, value, validate(value), validate.errors]).toEqual([name, value, true, null]);
  };
}

describe("what the bridge sends is as the document says:", () => {
  test("frames of rpmsg.v1.json", async () => {
    const { url, connect } = await testBridge();
    const check = validatorOf(await documented(url));
    const client = await connect("/ws/v1/demo/echo", ["rpmsg.v1.json"]);
    for (const frame of [
      { type: "send", id: "a", data: "/w==", encoding: "base64" },
      { type: "send", id: 2, data: "x".repeat(497) },
      { type: "ping" },
    ]) {
      check(`json.client.${frame.type}`, frame);
      client.socket.send(JSON.stringify(frame));
    }
    const seen = new Set<string>();
    while (seen.size < 5) {
      const frame = JSON.parse(await client.text()) as { type: string };
      check(`json.server.${frame.type}`, frame);
      seen.add(frame.type);
    }
    expect([...seen].toSorted()).toEqual(["error", "hello", "message", "pong", "sent"]);
  });

  test("frames of rpmsg.v1.mux, and the bytes of the binary ones", async () => {
    const { url, connect } = await testBridge();
    const document = await documented(url);
    const check = validatorOf(document);
    const bytesOf = (name: string) =>
      Buffer.from((document.components.messages[name]?.["x-example-hex"] ?? "").replaceAll(" ", ""), "hex");
    const client = await connect("/ws/v1", ["rpmsg.v1.mux"]);
    client.socket.send(JSON.stringify({ type: "subscribe", sub: 1, path: "/ws/v1/demo/echo" }));
    const question = bytesOf("mux.client.data");
    client.socket.send(question);
    client.socket.send(JSON.stringify({ type: "unsubscribe", sub: 9 }));
    const seen: string[] = [];
    for (let answer: Buffer | undefined; answer === undefined; ) {
      const frame = await client.next();
      if (frame[0] !== 0x7b) {
        answer = frame;
        expect(frame.toString("hex")).toBe(bytesOf("mux.server.data").toString("hex"));
      } else {
        const { type } = JSON.parse(frame.toString()) as { type: string };
        check(`mux.server.${type}`, JSON.parse(frame.toString()));
        seen.push(type);
      }
    }
    expect(seen).toEqual(expect.arrayContaining(["hello", "subscribed", "sent"]));
    expect(question.subarray(muxHeader.size).toString()).toBe("hello");
    expect(question.readUInt32LE(muxHeader.number)).toBe(7);
  });

  test("events", async () => {
    const { url, endpoint } = await testBridge();
    await endpoint("echo");
    const check = validatorOf(await documented(url));
    const abort = new AbortController();
    const { body } = await fetch(`${url}/api/v1/events`, { signal: abort.signal });
    let text = "";
    const seen = new Set<string>();
    for await (const part of body ?? []) {
      text += Buffer.from(part as Uint8Array).toString();
      const whole = text.split("\n\n");
      text = whole.pop() ?? "";
      for (const event of whole) {
        const [, name = "", data = ""] = /^event: (.*)\n(?:id: .*\n)?data: (.*)$/.exec(event) ?? [];
        check(`events.server.${name}`, JSON.parse(data));
        seen.add(name);
      }
      if (seen.has("ready")) break;
    }
    abort.abort();
    expect([...seen].toSorted()).toEqual(["endpoint", "guest", "ready"]);
  });
});
