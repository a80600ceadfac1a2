import type { IncomingMessage } from "node:http";
import { describe, expect, test } from "vitest";
import { guests, list } from "../../client/index.ts";
import { testBridge } from "../server/support.ts";
import { codeOf, Peer } from "./peer.ts";

/** A server that answers with one body after the other, and what it was asked. */
async function answering(...answers: { status?: number; body: string }[]) {
  const peer = await Peer.listen();
  const asked: IncomingMessage[] = [];
  peer.onRequest = (request, response) => {
    asked.push(request);
    const { status = 200, body } = answers[Math.min(asked.length, answers.length) - 1] ?? { body: "" };
    response.writeHead(status).end(body);
  };
  return { url: peer.http, asked };
}

const page = (ids: string[], next: string | null) => ({
  body: JSON.stringify({ endpoints: ids.map((id) => ({ id })), next }),
});

test("the lists of a bridge: guests, endpoints, and those that were asked for", async () => {
  const running = await testBridge();
  await running.endpoint("echo");
  const all = await running.endpoints();
  const channel = `${running.url.replace("http", "ws")}/ws/v1/demo/echo?share=shared`;
  expect(await list(running.url)).toEqual(all);
  expect(await list(new URL(channel))).toEqual(all);
  expect(await list(running.url, { guest: "demo", name: "echo", origin: "guest" })).toEqual(
    all.filter(({ name }) => name === "echo"),
  );
  expect(await list(running.url, { origin: "host" })).toEqual([]);
  expect(await guests(running.url)).toEqual([await running.guest("demo")]);
});

describe("a list in pages", () => {
  test("is followed to its end", async () => {
    const { url, asked } = await answering(page(["e1", "e2"], "e2"), page(["e3"], "e3"), page([], null));
    const found = await list(url, { guest: "a b", token: "secret" });
    expect(found.map(({ id }) => id)).toEqual(["e1", "e2", "e3"]);
    expect(asked.map((each) => each.url)).toEqual([
      "/api/v1/endpoints?guest=a+b",
      "/api/v1/endpoints?guest=a+b&after=e2",
      "/api/v1/endpoints?guest=a+b&after=e3",
    ]);
    expect(asked.map(({ headers }) => headers.authorization)).toEqual(Array(3).fill("Bearer secret"));
  });

  test("that does not go on is over", async () => {
    const { url } = await answering(page(["e1"], "e1"));
    expect(await list(url)).toHaveLength(2);
  });
});

describe("an answer that is none", () => {
  test("is the bridge's problem, in its words", async () => {
    const { url } = await answering({
      status: 403,
      body: '{"code":"origin-forbidden","detail":"not from here"}',
    });
    for (const asking of [list(url), guests(url)]) {
      await expect(asking).rejects.toMatchObject({ code: "origin-forbidden", message: "not from here" });
    }
  });

  test.each(["", "null", "[]", "{}", '{"endpoints":[null]}', '{"endpoints":[{}],"guests":[{}]}', "<html>"])(
    "is no bridge: %s",
    async (body) => {
      const { url } = await answering({ body });
      expect(await codeOf(list(url))).toBe("unreachable");
      expect(await codeOf(guests(url))).toBe("unreachable");
    },
  );

  test("is nobody", async () => {
    await expect(list("http://127.0.0.1:1")).rejects.toMatchObject({ code: "unreachable" });
  });
});

test("an abort ends the request with its reason, before the answer and in the middle of it", async () => {
  const reason = new Error("enough");
  expect(await codeOf(list("http://127.0.0.1:1", { signal: AbortSignal.abort(reason) }))).toBe(reason);
  const peer = await Peer.listen();
  const unanswered = new AbortController();
  peer.onRequest = () => unanswered.abort(reason);
  expect(await codeOf(list(peer.http, { signal: unanswered.signal }))).toBe(reason);
  const begun = new AbortController();
  peer.onRequest = (_request, response) => {
    // More than there is room for on the way: when it is written the client reads it.
    response.writeHead(200).write(" ".repeat(2 ** 25), () => begun.abort(reason));
  };
  expect(await codeOf(list(peer.http, { signal: begun.signal }))).toBe(reason);
});
