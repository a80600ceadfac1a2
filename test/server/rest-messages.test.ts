import { describe, expect, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import { MessageReply, MessageSent, Problem } from "../../schemas/index.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { AGREED, Answering, call, guestBridge, HOST } from "./name-service-guest.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

const JSON_TYPE = "application/json";
const BYTES = "application/octet-stream";

interface Send {
  /** An object is sent as JSON. */
  body?: object | string | Uint8Array;
  type?: string | undefined;
  accept?: string;
  query?: string;
  signal?: AbortSignal;
}

function post(
  running: RunningBridge,
  endpoint: Pick<Endpoint, "guest" | "id">,
  send: Send,
): Promise<Response> {
  const { body, query = "", accept, signal } = send;
  const raw = typeof body === "string" || body instanceof Uint8Array;
  const type = "type" in send ? send.type : raw ? BYTES : JSON_TYPE;
  return fetch(`${running.url}/api/v1/guests/${endpoint.guest}/endpoints/${endpoint.id}/messages${query}`, {
    method: "POST",
    headers: { ...(type !== undefined && { "content-type": type }), ...(accept !== undefined && { accept }) },
    // Of a view: without a type of its own.
    ...(body !== undefined && { body: Buffer.from(raw ? body : JSON.stringify(body)) }),
    ...(signal !== undefined && { signal }),
  });
}

/** The problem of an answer. */
async function problemOf(response: Response | Promise<Response>): Promise<Problem> {
  const answer = await response;
  expect(answer.headers.get("content-type")).toMatch(/^application\/problem\+json/);
  const problem = Problem.strict().parse(await answer.json());
  expect(problem.status).toBe(answer.status);
  return problem;
}

/** Checks that nothing is left of a message: no client, and counters that add up. */
async function expectNothingLeft(running: RunningBridge, name: string): Promise<void> {
  const { counters } = await running.endpoint(name, (each) => each.clients === 0);
  expect(counters.accepted).toBe(counters.messagesToGuest + counters.undelivered);
}

describe("a message over HTTP", () => {
  test.each<[what: string, send: Send, arrives: Uint8Array]>([
    ["JSON, utf8 unless said otherwise", { body: { data: "grüß" } }, Buffer.from("grüß")],
    ["JSON, utf8", { body: { data: "\u0000ü", encoding: "utf8" } }, Buffer.from("\u0000ü")],
    ["JSON, base64", { body: { data: "AP8=", encoding: "base64" } }, Buffer.from([0, 0xff])],
    ["JSON, hex", { body: { data: "00fFaB", encoding: "hex" } }, Buffer.from([0, 0xff, 0xab])],
    ["JSON, empty", { body: { data: "" } }, Buffer.alloc(0)],
    [
      "JSON, with a charset",
      { body: { data: "x" }, type: "application/json; charset=utf-8" },
      Buffer.from("x"),
    ],
    [
      "JSON, as long as may be",
      { body: { data: "ab".repeat(496), encoding: "hex" } },
      Buffer.alloc(496, 0xab),
    ],
    ["JSON, timeout in the query", { body: { data: "x" }, query: "?timeout=86400000" }, Buffer.from("x")],
    ["bytes", { body: Uint8Array.from({ length: 256 }, (_, i) => i) }, Buffer.from([...Array(256).keys()])],
    ["bytes, none", { body: "" }, Buffer.alloc(0)],
    ["bytes, with a timeout", { body: "x", query: "?timeout=1" }, Buffer.from("x")],
  ])("%s: 202, and it arrives", async (_what, send, arrives) => {
    const running = await vhostBridge();
    const valve = new Valve(true);
    await running.attach({ services: { valve: valve.factory } });
    const response = await post(running, await running.endpoint("valve"), send);
    expect(response.status).toBe(202);
    expect(MessageSent.strict().parse(await response.json())).toEqual({ result: "sent" });
    await eventually("it arrives", () => valve.taken[0]);
    expect(valve.taken).toEqual([Buffer.from(arrives)]);
    await expectNothingLeft(running, "valve");
  });

  test.each<[what: string, send: Send, reply: object]>([
    ["utf8", { body: { data: "grüß", wait: 5000 } }, { data: "grüß", encoding: "utf8" }],
    ["wait in the query", { body: { data: "x" }, query: "?wait=5000" }, { data: "x", encoding: "utf8" }],
    [
      "base64 as it was asked",
      { body: { data: "YWI=", encoding: "base64", wait: 5000 } },
      { data: "YWI=", encoding: "base64" },
    ],
    [
      "hex as it was asked",
      { body: { data: "6162", encoding: "hex", wait: 5000 } },
      { data: "6162", encoding: "hex" },
    ],
    ["bytes that are UTF-8", { body: "ab", query: "?wait=5000" }, { data: "ab", encoding: "utf8" }],
    [
      "bytes that are none",
      { body: Uint8Array.of(0xff), query: "?wait=5000" },
      { data: "/w==", encoding: "base64" },
    ],
    ["nothing", { body: { data: "", wait: 5000 } }, { data: "", encoding: "utf8" }],
    [
      "JSON is as good as anything",
      { body: { data: "x", wait: 5000 }, accept: "*/*" },
      { data: "x", encoding: "utf8" },
    ],
  ])("200 with the reply: %s", async (_what, send, reply) => {
    const running = await testBridge();
    const echo = await running.endpoint("echo");
    const response = await post(running, echo, send);
    expect(response.headers.get("content-type")).toMatch(/^application\/json/);
    expect(response.status).toBe(200);
    expect(MessageReply.strict().parse(await response.json())).toEqual({ src: echo.address, ...reply });
    await expectNothingLeft(running, "echo");
  });

  test.each<[what: string, send: Send]>([
    ["bytes", { body: Uint8Array.of(0, 0xff), query: "?wait=5000" }],
    ["JSON", { body: { data: "AP8=", encoding: "base64", wait: 5000 } }],
  ])("the reply comes as bytes where only bytes are accepted: after %s", async (_what, send) => {
    const running = await testBridge();
    const response = await post(running, await running.endpoint("echo"), { ...send, accept: BYTES });
    expect([response.status, response.headers.get("content-type")]).toEqual([200, BYTES]);
    expect(Buffer.from(await response.arrayBuffer())).toEqual(Buffer.from([0, 0xff]));
  });
});

describe("what is not understood", () => {
  test.each<[what: string, send: Send, status: number, code: string, detail: string]>([
    ["no data", { body: {} }, 400, "bad-request", "body: data: "],
    ["data of another type", { body: { data: 1 } }, 400, "bad-request", "body: data: "],
    ["another encoding", { body: { data: "", encoding: "utf16" } }, 400, "bad-request", "body: encoding: "],
    ["half a base64", { body: { data: "a", encoding: "base64" } }, 400, "bad-request", "body: data: "],
    ["base64url", { body: { data: "_-8=", encoding: "base64" } }, 400, "bad-request", "body: data: "],
    ["half a byte", { body: { data: "abc", encoding: "hex" } }, 400, "bad-request", "body: data: "],
    ["hex with 0x", { body: { data: "0x00", encoding: "hex" } }, 400, "bad-request", "body: data: "],
    ["timeout 0", { body: { data: "", timeout: 0 } }, 400, "bad-request", "body: timeout: "],
    ["timeout 1.5", { body: { data: "", timeout: 1.5 } }, 400, "bad-request", "body: timeout: "],
    ["a wait over a day", { body: { data: "", wait: 86_400_001 } }, 400, "bad-request", "body: wait: "],
    ["wait as text", { body: { data: "", wait: "1" } }, 400, "bad-request", "body: wait: "],
    ["local ANY", { body: { data: "", local: 0xffff_ffff } }, 400, "bad-request", "body: local: "],
    ["a key too many", { body: { data: "", dst: 7 } }, 400, "bad-request", "dst"],
    ["a list", { body: [] }, 400, "bad-request", "body: "],
    ["no JSON", { body: "{", type: JSON_TYPE }, 400, "bad-request", "JSON"],
    ["empty JSON", { body: "", type: JSON_TYPE }, 400, "bad-request", "empty"],
    ["query timeout 0", { body: "", query: "?timeout=0" }, 400, "bad-request", "query: timeout: "],
    ["query wait", { body: "", query: "?wait=soon" }, 400, "bad-request", "query: wait: "],
    ["query local", { body: "", query: "?local=-1" }, 400, "bad-request", "query: local: "],
    ["query key", { body: "", query: "?encoding=hex" }, 400, "bad-request", "encoding"],
    ["query twice", { body: "", query: "?wait=1&wait=2" }, 400, "bad-request", "query: wait: "],
    ["text", { body: "hello", type: "text/plain" }, 415, "media-type-unknown", ""],
    ["XML", { body: "<a/>", type: "text/xml" }, 415, "media-type-unknown", ""],
    ["a form", { body: "data=x", type: "application/x-www-form-urlencoded" }, 415, "media-type-unknown", ""],
    ["other JSON", { body: "{}", type: "application/merge-patch+json" }, 415, "media-type-unknown", ""],
    ["a body without a type", { body: "x", type: undefined }, 415, "media-type-unknown", ""],
    ["nothing at all", {}, 415, "media-type-unknown", ""],
    ["too much JSON", { body: { data: "x".repeat(131_072) } }, 413, "body-too-large", ""],
    ["too many bytes", { body: Buffer.alloc(131_073) }, 413, "body-too-large", ""],
  ])("%s", async (what, send, status, code, detail) => {
    const lines: unknown[] = [];
    const running = await testBridge({}, (line) => {
      if (line["event"] === "internal-error") lines.push(line);
    });
    const echo = await running.endpoint("echo");
    const problem = await problemOf(
      post(running, echo, { ...send, ...(what === "nothing at all" && { type: undefined }) }),
    );
    expect(problem).toMatchObject({ status, code });
    expect(problem.detail).toContain(detail);
    expect(lines).toEqual([]);
    const { clients, counters } = await running.endpoint("echo");
    expect({ clients, accepted: counters.accepted }).toEqual({ clients: 0, accepted: 0 });
  });

  test.each([
    ["nobody", "e1", "guest-unknown"],
    ["b", "e0", "endpoint-unknown"],
    ["b", "~e1", "endpoint-unknown"],
    ["b", "__proto__", "endpoint-unknown"],
  ])("guest %s, endpoint %s: 404 %s", async (guest, id, code) => {
    const running = await testBridge({ guests: { b: { kind: "emulated" } } });
    await running.endpoint("echo");
    expect(await problemOf(post(running, { guest, id }, { body: "x" }))).toMatchObject({ status: 404, code });
  });

  test("an endpoint of another guest is none of this one", async () => {
    const running = await testBridge({ guests: { a: { kind: "emulated" }, b: { kind: "emulated" } } });
    const { id } = await running.endpoint("echo", (each) => each.guest === "a");
    expect(await problemOf(post(running, { guest: "b", id }, { body: "x" }))).toMatchObject({
      ...{ status: 404, code: "endpoint-unknown" },
    });
  });
});

describe("what becomes of it", () => {
  test("too-large 413", async () => {
    const running = await testBridge();
    const echo = await running.endpoint("echo");
    for (const wait of ["", "?wait=5000"]) {
      const problem = await problemOf(post(running, echo, { body: Buffer.alloc(497), query: wait }));
      expect(problem).toMatchObject({ status: 413, code: "too-large" });
      expect(problem.detail).toContain("497");
      expect(problem.detail).toContain("496");
    }
    await expectNothingLeft(running, "echo");
    expect((await running.endpoint("echo")).counters.accepted).toBe(0);
  });

  test("no-reply 504: it was sent, and the time is over", async () => {
    const running = await testBridge();
    const sink = await running.endpoint("sink");
    expect(await problemOf(post(running, sink, { body: "x", query: "?wait=20" }))).toMatchObject({
      ...{ status: 504, code: "no-reply" },
    });
    await expectNothingLeft(running, "sink");
    expect((await running.endpoint("sink")).counters).toMatchObject({ messagesToGuest: 1, undelivered: 0 });
  });

  test("endpoint-in-use 409: an exclusive client is there", async () => {
    const running = await testBridge();
    const client = await running.connect("/ws/v1/demo/echo?share=exclusive");
    const echo = await running.endpoint("echo");
    expect(await problemOf(post(running, echo, { body: "x" }))).toMatchObject({
      ...{ status: 409, code: "endpoint-in-use" },
    });
    await client.close();
    await running.endpoint("echo", (each) => each.clients === 0);
    expect((await post(running, echo, { body: "x" })).status).toBe(202);
  });

  test("endpoint-in-use 409: a client took the endpoint over while it waited for the reply", async () => {
    const running = await testBridge();
    const sink = await running.endpoint("sink");
    const answer = problemOf(post(running, sink, { body: "x", query: "?wait=60000" }));
    await running.endpoint("sink", (each) => each.clients === 1);
    const client = await running.connect("/ws/v1/demo/sink?share=exclusive&takeover=1");
    expect(await answer).toMatchObject({ status: 409, code: "endpoint-in-use" });
    expect((await running.endpoint("sink")).clients).toBe(1);
    await client.close();
    await expectNothingLeft(running, "sink");
  });

  test("local-in-use 409: another client has that address for itself", async () => {
    const running = await testBridge();
    const echo = await running.endpoint("echo");
    const client = await running.connect("/ws/v1/demo/echo?local=2000");
    for (const send of [{ body: { data: "x", local: 2000 } }, { body: "x", query: "?local=2000" }]) {
      expect(await problemOf(post(running, echo, send))).toMatchObject({ status: 409, code: "local-in-use" });
    }
    // Name service is nobody's.
    expect(await problemOf(post(running, echo, { body: { data: "x", local: 53 } }))).toMatchObject({
      ...{ status: 409, code: "local-in-use" },
    });
    expect((await running.endpoint("echo")).clients).toBe(1);
    expect(client.received).toBe(0);
  });

  test("a local address that is shared: all that have it hear the reply", async () => {
    const running = await testBridge();
    const echo = await running.endpoint("echo");
    const client = await running.connect("/ws/v1/demo/echo?local=2000&share=shared");
    const response = await post(running, echo, { body: { data: "x", local: 2000, wait: 5000 } });
    expect(await response.json()).toMatchObject({ data: "x" });
    expect(await client.text()).toBe("x");
    expect((await running.endpoint("echo")).clients).toBe(1);
  });
});

describe.skipIf(unsupported !== undefined)(titled("while the guest does not take it"), () => {
  const DECLARED = { endpoints: [{ name: "svc", address: HOST }] };

  test("no-peer 409: the guest has not spoken within the time", async () => {
    const running = await vhostBridge({}, DECLARED);
    for (const send of [
      { body: { data: "x", timeout: 20 } },
      { body: "x", query: "?timeout=20&wait=60000" },
    ]) {
      expect(await problemOf(post(running, await running.endpoint("svc"), send))).toMatchObject({
        ...{ status: 409, code: "no-peer" },
      });
    }
    await expectNothingLeft(running, "svc");
    expect((await running.endpoint("svc")).counters).toMatchObject({ accepted: 2, undelivered: 2 });
  });

  test("the timeout is that of the configuration where none is given", async () => {
    const running = await vhostBridge({ limits: { sendTimeout: 20 } }, DECLARED);
    expect(await problemOf(post(running, await running.endpoint("svc"), { body: "x" }))).toMatchObject({
      ...{ status: 409, code: "no-peer" },
    });
  });

  test("no-buffer 504: no buffer was free within the time", async () => {
    const running = await vhostBridge();
    const valve = new Valve();
    const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    const endpoint = await running.endpoint("valve");
    for (let i = 0; i < 8; i++) expect((await post(running, endpoint, { body: `${i}` })).status).toBe(202);
    for (const query of ["?timeout=20", "?timeout=20&wait=60000"]) {
      expect(await problemOf(post(running, endpoint, { body: "too many", query }))).toMatchObject({
        ...{ status: 504, code: "no-buffer" },
      });
    }
    await expectNothingLeft(running, "valve");
    valve.release(attached);
    expect((await post(running, endpoint, { body: "more" })).status).toBe(202);
    await eventually("all are there", () => (valve.taken.length === 9 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(["0", "1", "2", "3", "4", "5", "6", "7", "more"]);
  });

  test("202 as soon as it finds a buffer", async () => {
    const running = await vhostBridge();
    const valve = new Valve();
    const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    const endpoint = await running.endpoint("valve");
    for (let i = 0; i < 8; i++) await post(running, endpoint, { body: `${i}` });
    const late = post(running, endpoint, { body: "late" });
    await running.endpoint("valve", (each) => each.counters.accepted === 9);
    valve.release(attached);
    expect((await late).status).toBe(202);
    await expectNothingLeft(running, "valve");
  });

  test("guest-gone 503: the guest was reset while it waited for a buffer, and nothing is sent later", async () => {
    const { running, guest, attach } = await guestBridge([], {
      profile: "rpmsg-lite",
      services: { svc: new Valve(true).factory },
    });
    guest.faults.neverRefill = true;
    const { vm } = await attach();
    const endpoint = await running.endpoint("svc");
    for (let i = 0; i < 8; i++) await post(running, endpoint, { body: `${i}` });
    const waits = problemOf(post(running, endpoint, { body: "waits" }));
    await running.endpoint("svc", (each) => each.counters.accepted === 9);
    guest.faults.neverRefill = false;
    await vm.reboot();
    expect(await waits).toMatchObject({ status: 503, code: "guest-gone" });
    const after = await running.endpoint("svc", (each) => each.generation === 2);
    await post(running, after, { body: "after" });
    await eventually("the next one", () => (guest.messages.length > 0 ? true : undefined));
    expect(guest.messages.map(({ text }) => text)).toEqual(["after"]);
  });

  test("guest-gone 503: the guest was reset while the reply was waited for", async () => {
    const running = await vhostBridge();
    const { vm } = await running.attach({ services: { svc: new Valve(true).factory } });
    const waits = problemOf(
      post(running, await running.endpoint("svc"), { body: "x", query: "?wait=60000" }),
    );
    await running.endpoint("svc", (each) => each.counters.messagesToGuest === 1);
    await vm.reboot();
    expect(await waits).toMatchObject({ status: 503, code: "guest-gone" });
    await running.endpoint("svc", (each) => each.generation === 2 && each.clients === 0);
  });

  test("guest-gone 503: the frontend left while it waited for the peer", async () => {
    const running = await vhostBridge({}, DECLARED);
    const { vm } = await running.attach({ services: {}, otherService: () => undefined });
    const waits = problemOf(post(running, await running.endpoint("svc"), { body: "x" }));
    await running.endpoint("svc", (each) => each.counters.accepted === 1);
    vm.close();
    expect(await waits).toMatchObject({ status: 503, code: "guest-gone" });
    await expectNothingLeft(running, "svc");
  });

  test("endpoint-gone 410: the host's endpoint was withdrawn; it is not sent, and its address is free", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([{ name: "svc", address: HOST }], {
      services: { agreed: { service: answering.factory, ns: "none", address: AGREED } },
    });
    await attach();
    const { id } = await running.endpoint("svc", (each) => each.state === "announced");
    const waits = problemOf(post(running, { guest: "vm", id }, { body: "waits" }));
    await running.endpoint("svc", (each) => each.counters.accepted === 1);
    expect((await call(running, "DELETE", `/${id}`)).status).toBe(204);
    expect(await waits).toMatchObject({ status: 410, code: "endpoint-gone" });
    // The next holder of the address has the guest's attention to itself.
    const next = await call(running, "POST", "", { name: "svc", address: HOST });
    expect(next.status).toBe(201);
    answering.contexts[0]?.send(HOST, Buffer.from("hello"));
    const endpoint = await running.endpoint("svc", (each) => each.state === "connected");
    const response = await post(running, endpoint, { body: { data: "next", wait: 5000 } });
    expect(await response.json()).toMatchObject({ src: AGREED, data: "48: next" });
    expect(guest.messages.map(({ text }) => text)).toEqual(["next"]);
  });

  test("endpoint-gone 410: it was withdrawn while the reply was waited for", async () => {
    const running = await vhostBridge();
    const { guest } = await running.attach({ services: { svc: new Valve(true).factory } });
    const endpoint = await running.endpoint("svc");
    const waits = problemOf(post(running, endpoint, { body: "x", query: "?wait=60000" }));
    await running.endpoint("svc", (each) => each.counters.messagesToGuest === 1);
    guest.withdraw("svc");
    expect(await waits).toMatchObject({ status: 410, code: "endpoint-gone" });
  });

  test("endpoint-gone 410: the guest withdrew its endpoint; it is not sent to what comes there next", async () => {
    const { running, guest, attach } = await guestBridge([], {
      profile: "rpmsg-lite",
      services: { svc: new Valve(true).factory },
    });
    guest.faults.neverRefill = true;
    await attach();
    const endpoint = await running.endpoint("svc");
    for (let i = 0; i < 8; i++) await post(running, endpoint, { body: `${i}` });
    const waits = problemOf(post(running, endpoint, { body: "waits" }));
    await running.endpoint("svc", (each) => each.counters.accepted === 9);
    guest.withdraw("svc");
    expect(await waits).toMatchObject({ status: 410, code: "endpoint-gone" });
    guest.announce("svc", new Valve(true).factory);
    const next = await running.endpoint("svc", (each) => each.id !== endpoint.id);
    expect(next.address).toBe(endpoint.address);
    guest.faults.neverRefill = false;
    expect((await post(running, next, { body: "next" })).status).toBe(202);
    await eventually("the next one", () => (guest.messages.length > 8 ? true : undefined));
    expect(guest.messages.slice(8).map(({ text }) => text)).toEqual(["next"]);
  });

  test("what a client left behind is not sent either, once the endpoint is withdrawn", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([{ name: "svc", address: HOST }], {
      services: { agreed: { service: answering.factory, ns: "none", address: AGREED } },
    });
    await attach();
    const { id } = await running.endpoint("svc", (each) => each.state === "announced");
    const client = await running.connect("/ws/v1/vm/svc");
    client.send("left behind");
    await running.endpoint("svc", (each) => each.counters.accepted === 1);
    await client.close();
    await running.endpoint("svc", (each) => each.clients === 0);
    await call(running, "DELETE", `/${id}`);
    expect((await call(running, "POST", "", { name: "svc", address: HOST })).status).toBe(201);
    answering.contexts[0]?.send(HOST, Buffer.from("hello"));
    const endpoint = await running.endpoint("svc", (each) => each.state === "connected");
    await post(running, endpoint, { body: { data: "next", wait: 5000 } });
    expect(guest.messages.map(({ text }) => text)).toEqual(["next"]);
  });

  test("of a paused guest it waits, however long, and is sent when that goes on", async () => {
    const running = await vhostBridge();
    const { vm } = await running.attach();
    const echo = await running.endpoint("echo");
    await vm.pause();
    const answer = post(running, echo, { body: { data: "patience", timeout: 1, wait: 5000 } });
    await running.endpoint("echo", (each) => each.counters.accepted === 1);
    const until = performance.now() + 60;
    await eventually("longer than its timeout", () => (performance.now() > until ? true : undefined));
    await vm.resume();
    expect(await (await answer).json()).toMatchObject({ data: "patience" });
  });

  test("what comes before it is sent is no reply to it", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([{ name: "svc", address: HOST }], {
      profile: "rpmsg-lite",
      services: { svc: { service: answering.factory, ns: "down" } },
    });
    await attach();
    const endpoint = await running.endpoint("svc", (each) => each.state === "connected");
    guest.faults.neverRefill = true;
    for (let i = 0; i < 8; i++) await post(running, endpoint, { body: "fill" });
    const before = (await running.endpoint("svc")).counters;
    const answer = post(running, endpoint, { body: { data: "question", wait: 5000 } });
    await running.endpoint("svc", (each) => each.counters.accepted === before.accepted + 1);
    answering.contexts[0]?.send(HOST, Buffer.from("by the way"));
    const heard = await running.endpoint(
      "svc",
      (each) => each.counters.messagesToClients > before.messagesToClients,
    );
    expect(heard.counters.messagesToGuest).toBe(before.messagesToGuest);
    guest.faults.neverRefill = false;
    expect(await (await answer).json()).toMatchObject({ data: "1: question" });
  });
});

describe("an HTTP client that leaves", () => {
  test("while the reply is waited for: its channel ends", async () => {
    const running = await testBridge();
    const sink = await running.endpoint("sink");
    const leaving = new AbortController();
    const answer = post(running, sink, { body: "x", query: "?wait=86400000", signal: leaving.signal });
    await running.endpoint("sink", (each) => each.clients === 1);
    leaving.abort();
    await expect(answer).rejects.toThrow();
    await expectNothingLeft(running, "sink");
  });

  test.skipIf(unsupported !== undefined)(
    titled("while it waits for a buffer: what was accepted is still sent"),
    async () => {
      const running = await vhostBridge();
      const valve = new Valve();
      const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
      const endpoint = await running.endpoint("valve");
      for (let i = 0; i < 8; i++) await post(running, endpoint, { body: `${i}` });
      const leaving = new AbortController();
      const answer = post(running, endpoint, { body: "accepted", signal: leaving.signal });
      await running.endpoint("valve", (each) => each.counters.accepted === 9);
      leaving.abort();
      await expect(answer).rejects.toThrow();
      await running.endpoint("valve", (each) => each.clients === 0);
      valve.release(attached);
      await eventually("it arrives", () => (valve.taken.length === 9 ? true : undefined));
      expect(valve.taken.at(-1)?.toString()).toBe("accepted");
      await expectNothingLeft(running, "valve");
    },
  );
});
