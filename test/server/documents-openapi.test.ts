import { Buffer } from "node:buffer";
import { once } from "node:events";
import { createConnection } from "node:net";
import { pino } from "pino";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { WebSocket } from "ws";
import { EmulatedGuest } from "../../guest/index.ts";
import type { ConfigInput } from "../../schemas/index.ts";
import { Config } from "../../schemas/index.ts";
import { buildApp } from "../../server/app.ts";
import { Bridge } from "../../server/bridge.ts";
import { asyncApiDocument } from "../../server/documents/asyncapi.ts";
import { fieldTexts } from "../../server/documents/field-texts.ts";
import type { ProblemCode } from "../../server/problem.ts";
import type { Document } from "./openapi.ts";
import { AnswerChecker, operationsOf } from "./openapi.ts";
import { eventually, testBridge } from "./support.ts";
import { allRights, testToken } from "./tokens.ts";

async function documentOf(url: string): Promise<Document> {
  return (await (await fetch(`${url}/openapi.json`)).json()) as Document;
}

/** Every value with a key, wherever it is. */
function valuesOf(value: unknown, key: string): unknown[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, item]) => [
    ...(name === key ? [item] : []),
    ...valuesOf(item, key),
  ]);
}

/** The place of a reference in its document. */
function resolve(document: unknown, reference: string): unknown {
  let place = document as Record<string, unknown> | undefined;
  for (const part of reference.replace(/^#\//, "").split("/")) {
    place = place?.[part.replaceAll("~1", "/").replaceAll("~0", "~")] as typeof place;
  }
  return place;
}

describe("/openapi.json", () => {
  test("has every route of the application but the page, and no other", async () => {
    const bridge = new Bridge(Config.parse({}), pino({ level: "silent" }));
    const app = buildApp(bridge);
    onTestFinished(async () => {
      bridge.close();
      await app.close();
    });
    const routes: string[] = [];
    app.addHook("onRoute", ({ method, url, schema }) => {
      if (method !== "HEAD" && schema?.hide !== true) {
        routes.push(`${String(method)} ${url.replaceAll(/:(\w+)/g, "{$1}")}`);
      }
    });
    await app.ready();
    const document = (
      await app.inject({ url: "/openapi.json", headers: { host: "localhost" } })
    ).json<Document>();
    const documented = operationsOf(document).map(({ method, path }) => `${method} ${path}`);
    expect(documented.toSorted()).toEqual(routes.toSorted());
    expect(routes).toContain("POST /api/v1/guests/{guest}/endpoints/{id}/messages");
  });

  test("every operation has a name of its own, a summary and a tag that is explained", async () => {
    const { url } = await testBridge();
    const document = await documentOf(url);
    const operations = operationsOf(document).map(({ operation }) => operation);
    const names = operations.map(({ operationId }) => operationId);
    expect(names).not.toContain(undefined);
    expect(new Set(names).size).toBe(names.length);
    const known = document.tags?.map(({ name }) => name);
    for (const { summary, tags } of operations) {
      expect(summary).toMatch(/^[A-Z]/);
      expect(known).toEqual(expect.arrayContaining(tags ?? ["none"]));
    }
    expect(new Set(operations.flatMap(({ tags = [] }) => tags))).toEqual(new Set(known));
  });

  test("every reference leads to a component, and every component is referred to", async () => {
    const { url } = await testBridge();
    const document = await documentOf(url);
    const references = new Set(valuesOf(document, "$ref") as string[]);
    expect([...references].filter((each) => resolve(document, each) === undefined)).toEqual([]);
    const components = Object.keys(document.components?.schemas ?? {});
    expect(new Set(components.map((name) => `#/components/schemas/${name}`))).toEqual(references);
  });

  test("every field and parameter is explained, and nothing else", async () => {
    const { url } = await testBridge();
    const document = await documentOf(url);
    const parameters = operationsOf(document).flatMap(({ operation }) => operation.parameters ?? []);
    const asyncApi = asyncApiDocument();
    const properties = [...valuesOf(document, "properties"), ...valuesOf(asyncApi, "properties")].flatMap(
      (each) => Object.entries(each as Record<string, Record<string, unknown>>),
    );
    const unexplained = [
      ...parameters.filter((each) => !("description" in each)),
      ...properties.filter(([, each]) => !("description" in each || "$ref" in each || "const" in each)),
    ];
    expect(unexplained).toEqual([
      // The sizes of queues and what waits in them, in both documents: they are explained as a whole.
      ["response", { type: "integer", minimum: 0 }],
      ["request", { type: "integer", minimum: 0 }],
      ["response", { type: "integer", minimum: 0 }],
      ["request", { type: "integer", minimum: 0 }],
      ["response", { type: "integer", minimum: 0 }],
      ["request", { type: "integer", minimum: 0 }],
      ["response", { type: "integer", minimum: 0 }],
      ["request", { type: "integer", minimum: 0 }],
    ]);
    const used = new Set([...valuesOf(document, "description"), ...valuesOf(asyncApi, "description")]);
    expect(Object.entries(fieldTexts).filter(([, text]) => !used.has(text))).toEqual([]);
  });

  test("bytes are a binary body, of messages and of replies, and errors are problems", async () => {
    const { url } = await testBridge();
    const { paths } = await documentOf(url);
    const { requestBody, responses } = paths?.["/api/v1/guests/{guest}/endpoints/{id}/messages"]?.post ?? {};
    const bytes = { "application/octet-stream": { schema: { type: "string", format: "binary" } } };
    const json = (name: string) => ({
      "application/json": { schema: { $ref: `#/components/schemas/${name}` } },
    });
    expect(requestBody).toEqual({ required: true, content: { ...json("MessageSend"), ...bytes } });
    expect(responses?.["200"]).toMatchObject({ content: { ...json("MessageReply"), ...bytes } });
    expect(responses?.["202"]).toMatchObject({ content: json("MessageSent") });
    for (const [status, response] of Object.entries(responses ?? {})) {
      if (status.startsWith("2")) continue;
      expect(response).toMatchObject({
        content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
      });
    }
  });

  test("its examples are as its schemas say", async () => {
    const { url } = await testBridge();
    const document = await documentOf(url);
    const checker = new AnswerChecker(document);
    let count = 0;
    for (const [name, schema] of Object.entries(document.components?.schemas ?? {})) {
      const validate = checker.schema("components", "schemas", name);
      for (const example of schema.examples ?? []) {
        count++;
        expect([name, validate(example), validate.errors]).toEqual([name, true, null]);
      }
    }
    expect(count).toBeGreaterThan(0);
  });
});

/** Bridges that answer no request but one, which goes before on a connection of its own; not with these headers. */
const doors: [code: ProblemCode, input: ConfigInput, headers: Record<string, string>][] = [
  ["origin-forbidden", {}, { origin: "http://evil.example" }],
  ["host-unknown", { trustedProxies: ["loopback"] }, { "x-forwarded-host": "evil.example" }],
  ["rate-limited", { limits: { limitLocal: true, requestRate: { perSecond: 1, burst: 1 } } }, {}],
  ["too-many-connections", { limits: { limitLocal: true, connectionsPerAddress: 1 } }, {}],
  ["overloaded", { limits: { connections: 1 } }, {}],
  ["draining", {}, {}],
];

/** Sends a request and checks the answer against the document. */
type Ask = (operationId: string, path: string, init?: RequestInit, base?: string) => Promise<Response>;

function post(
  body: object | string | Uint8Array<ArrayBuffer>,
  type = "application/json",
  accept = "*/*",
): RequestInit {
  const sent = typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body);
  return { method: "POST", headers: { "content-type": type, accept }, body: sent };
}

test("every answer of the document is given by the bridge, with a body as its schema says", async () => {
  const demo = new EmulatedGuest();
  const config = Config.parse({
    guests: { demo: { kind: "emulated" }, stuck: { kind: "emulated" } },
    limits: { declaredEndpoints: 3, drainTimeout: 1000 },
  });
  const stuck = new EmulatedGuest();
  const bridge = new Bridge(
    config,
    pino({ level: "silent" }),
    new Map([
      ["demo", demo],
      ["stuck", stuck],
    ]),
  );
  const app = buildApp(bridge);
  await bridge.start();
  const url = await app.listen({ host: "127.0.0.1", port: 0 });
  onTestFinished(async () => {
    bridge.close();
    await app.close();
  });
  const document = await documentOf(url);
  const checker = new AnswerChecker(document);
  const ask: Ask = async (operationId, path, init, base = url) => {
    const response = await fetch(base + path, init);
    checker.check(operationId, response.clone(), await response.text());
    return response;
  };
  const of = (name: string, guest = "demo") =>
    `/api/v1/guests/${guest}/endpoints/${idOf(bridge, guest, name)}`;
  const endpoints = "/api/v1/guests/demo/endpoints";

  // The bridge.
  await ask("isAlive", "/healthz");
  await ask("isReady", "/readyz");
  await ask("getMetrics", "/metrics");
  await ask("getOpenApi", "/openapi.json");
  await ask("getAsyncApi", "/asyncapi.json");
  const events = new AbortController();
  const stream = await fetch(`${url}/api/v1/events`, { signal: events.signal });
  checker.check("watchEvents", stream, "event: ready");
  events.abort();
  const capture = new AbortController();
  const captured = await fetch(`${url}/api/v1/capture`, { signal: capture.signal });
  checker.check("capture", captured, "bytes");
  capture.abort();
  await ask("capture", "/api/v1/capture?what=ever");
  await ask("capture", "/api/v1/capture?guest=nobody");

  // Guests and endpoints.
  await ask("listGuests", "/api/v1/guests");
  await ask("getGuest", "/api/v1/guests/demo");
  await ask("getGuest", "/api/v1/guests/nobody");
  await ask("listEndpoints", "/api/v1/endpoints?limit=2");
  await ask("listEndpoints", "/api/v1/endpoints?limit=none");
  await ask("listEndpointsOfGuest", endpoints);
  await ask("listEndpointsOfGuest", `${endpoints}?what=ever`);
  await ask("listEndpointsOfGuest", "/api/v1/guests/nobody/endpoints");
  await ask("getEndpoint", of("echo"));
  await ask("getEndpoint", `${endpoints}/none`);
  await ask("getEndpoint", "/api/v1/guests/nobody/endpoints/e1");
  await ask("declareEndpoint", endpoints, post({ name: "silent", ns: "none", address: 2000 }));
  await ask("declareEndpoint", endpoints, post({ name: "other", ns: "none", address: 2000 }));
  await ask("declareEndpoint", endpoints, post({ name: "told", ns: "down", address: 2001 }));
  await ask("declareEndpoint", endpoints, post({ name: "told", ns: "down", address: 2001 }));
  await ask("declareEndpoint", endpoints, post({ name: "more", ns: "none", address: 2002 }));
  await ask("declareEndpoint", endpoints, post({ name: "most", ns: "none", address: 2003 }));
  await ask("declareEndpoint", endpoints, post({ name: "" }));
  await ask("declareEndpoint", endpoints, post("x".repeat(200_000)));
  await ask("declareEndpoint", endpoints, post("name=x", "application/x-www-form-urlencoded"));
  await ask("declareEndpoint", "/api/v1/guests/nobody/endpoints", post({ name: "x" }));
  await ask("withdrawEndpoint", of("more"), { method: "DELETE" });
  await ask("withdrawEndpoint", of("echo"), { method: "DELETE" });
  await ask("withdrawEndpoint", `${endpoints}/none`, { method: "DELETE" });
  await ask("withdrawEndpoint", "/api/v1/guests/nobody/endpoints/e1", { method: "DELETE" });

  // What may be done.
  await ask("getAccess", "/api/v1/access?guest=demo&id=e1");
  await ask("getAccess", "/api/v1/access?id=e1");
  await ask("getAccess", "/api/v1/access?guest=nobody");
  await ask("getAccess", "/api/v1/access?guest=demo&id=none");

  // Messages.
  const echo = `${of("echo")}/messages`;
  const silent = `${of("silent")}/messages`;
  const bytes = "application/octet-stream";
  await ask("sendMessage", echo, post({ data: "hello" }));
  await ask("sendMessage", echo, post({ data: "hello", wait: 10_000 }));
  const reply = await ask("sendMessage", `${echo}?wait=10000`, post(Buffer.from([0, 255]), bytes, bytes));
  expect(reply.headers.get("content-type")).toBe(bytes);
  await ask("sendMessage", echo, post({ data: "0g", encoding: "hex" }));
  await ask("sendMessage", echo, post("x".repeat(497), bytes));
  await ask("sendMessage", echo, post("x".repeat(200_000), bytes));
  await ask("sendMessage", echo, post("<x/>", "text/xml"));
  await ask("sendMessage", `${of("sink")}/messages`, post({ data: "x", wait: 1 }));
  await ask("sendMessage", `${endpoints}/none/messages`, post({ data: "x" }));
  await ask("sendMessage", "/api/v1/guests/nobody/endpoints/e1/messages", post({ data: "x" }));
  await ask("sendMessage", silent, post({ data: "x", timeout: 1 }));
  const holder = await connect(`${url}/ws/v1/demo/tty?share=exclusive&local=3000`);
  await ask("sendMessage", `${of("tty")}/messages`, post({ data: "x" }));
  await ask("sendMessage", echo, post({ data: "x", local: 3000 }));
  holder.terminate();
  stuck.faults.neverRefill = true;
  const sink = `${of("sink", "stuck")}/messages`;
  for (let last = 202; last === 202; )
    last = (await fetch(url + sink, post({ data: "x", timeout: 1 }))).status;
  await ask("sendMessage", sink, post({ data: "x", timeout: 1 }));
  const waits = ask("sendMessage", sink, post({ data: "x" }));
  await eventually("it waits", () => (clientsOf(bridge, "stuck", "sink") > 0 ? true : undefined));
  await Promise.all([waits, stuck.reboot()]);
  const withdrawn = ask("sendMessage", silent, post({ data: "x" }));
  await eventually("it waits", () => (clientsOf(bridge, "demo", "silent") > 0 ? true : undefined));
  await Promise.all([withdrawn, ask("withdrawEndpoint", of("silent"), { method: "DELETE" })]);

  // Who may do what.
  const [viewer, all] = [testToken("viewer", { list: ["demo/echo"] }), allRights()];
  const strict = await testBridge({ tokens: [viewer.config, all.config] }, undefined, all.headers);
  const readOnly = await testBridge({ tokens: [all.config], readOnly: true }, undefined, all.headers);
  for (const each of [strict, readOnly]) expect((await each.endpoint("echo")).id).toBe("e1");
  const e1 = `${endpoints}/e1`;
  const operations: [operationId: string, method: string, path: string, body?: object][] = [
    ["getMetrics", "GET", "/metrics"],
    ["listGuests", "GET", "/api/v1/guests"],
    ["getGuest", "GET", "/api/v1/guests/demo"],
    ["listEndpoints", "GET", "/api/v1/endpoints"],
    ["listEndpointsOfGuest", "GET", endpoints],
    ["getEndpoint", "GET", e1],
    ["watchEvents", "GET", "/api/v1/events"],
    ["capture", "GET", "/api/v1/capture"],
    ["getAccess", "GET", "/api/v1/access"],
    ["issueTicket", "POST", "/api/v1/tickets"],
    ["openSession", "POST", "/api/v1/sessions"],
    ["declareEndpoint", "POST", endpoints, { name: "service" }],
    ["withdrawEndpoint", "DELETE", e1],
    ["sendMessage", "POST", `${e1}/messages`, { data: "x" }],
  ];
  for (const [operationId, method, path, body] of operations) {
    const ways = [
      [strict, {}],
      [strict, viewer.headers],
      [readOnly, all.headers],
    ] as const;
    // What is given to whoever may watch has no end.
    const few = { watchEvents: 1, capture: 2 }[operationId];
    for (const [{ url: base }, shown] of ways.slice(0, few)) {
      const headers = { ...shown, ...(body && { "content-type": "application/json" }) };
      await ask(operationId, path, { method, headers, ...(body && { body: JSON.stringify(body) }) }, base);
    }
  }

  // What a token may have so many of, and a ticket none.
  const narrow = await testBridge({ tokens: [all.config], limits: { connectionsPerToken: 1 } });
  for (const [operationId, path] of [
    ["openSession", "/api/v1/sessions"],
    ["issueTicket", "/api/v1/tickets"],
  ] as const) {
    const by = (headers: Record<string, string>) =>
      ask(operationId, path, { method: "POST", headers }, narrow.url);
    for (let i = 0; i < 2; i++) await by(all.headers);
    const { credential } = strict.bridge.gate.issueTicket(strict.bridge.gate.admit({ ...all.headers }));
    const headers = { authorization: `Bearer ${credential}` };
    await ask(operationId, path, { method: "POST", headers }, strict.url);
  }

  // The end.
  await bridge.drain();
  await ask("isReady", "/readyz");
  await ask("declareEndpoint", endpoints, post({ name: "late" }));

  // What is answered at the door, whatever is asked for. Time stands still there: what was asked for once counts.
  vi.spyOn(performance, "now").mockReturnValue(performance.now());
  onTestFinished(() => void vi.restoreAllMocks());
  for (const [code, input, headers] of doors) {
    const running = await testBridge(input);
    const first = createConnection(Number(new URL(running.url).port), "127.0.0.1");
    onTestFinished(() => void first.destroy());
    first.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await once(first, "data");
    if (code === "draining") running.bridge.pause();
    for (const { method, path, operation } of operationsOf(document)) {
      const place = path.replace("{guest}", "demo").replace("{id}", "e1");
      const operationId = operation.operationId ?? "";
      const { status } = await ask(operationId, place, { method, headers }, running.url);
      expect(checker.given).toContain(`${operationId} ${status} ${code}`);
    }
  }

  const { documented, given } = checker;
  expect([...documented].filter((each) => !given.has(each)).toSorted()).toEqual(
    [
      // A guest with all its billions of addresses taken.
      "declareEndpoint 503 no-address",
      // A guest that has no name service: in the tests of its modes.
      "declareEndpoint 409 name-service-off",
      "sendMessage 503 no-address",
    ].toSorted(),
  );
});

function described(bridge: Bridge, guest: string, name: string) {
  return bridge.directory.list((port) => port.guest === guest && port.name === name).endpoints[0];
}

function idOf(bridge: Bridge, guest: string, name: string): string {
  return described(bridge, guest, name)?.id ?? "none";
}

function clientsOf(bridge: Bridge, guest: string, name: string): number {
  return described(bridge, guest, name)?.clients ?? 0;
}

async function connect(url: string): Promise<WebSocket> {
  const socket = new WebSocket(url.replace("http", "ws"));
  await once(socket, "open");
  return socket;
}
