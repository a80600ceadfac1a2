import { describe, expect, onTestFinished, test, vi } from "vitest";
import { MessageEncoder } from "../../server/channel/message-encoder.ts";
import { JsonClient } from "./json-client.ts";
import { testBridge } from "./support.ts";

/** Memory of a guest with a message at 4. */
function memoryWith(text: string): Uint8Array {
  const memory = new Uint8Array(64).fill(0x2e);
  memory.set(Buffer.from(text), 4);
  return memory;
}

describe("one message that goes to several clients is encoded once", () => {
  test("with the same serial the same bytes come back, not others that are equal", () => {
    const encoder = new MessageEncoder();
    const memory = memoryWith("hello");
    const first = encoder.tail(1024, memory, 4, 5, 1);
    expect(first.toString()).toBe(',"src":1024,"data":"hello","encoding":"utf8"}');
    for (let client = 0; client < 3; client++) expect(encoder.tail(1024, memory, 4, 5, 1)).toBe(first);
  });

  test("the next message has bytes of its own, at the same place too", () => {
    const encoder = new MessageEncoder();
    const memory = memoryWith("hello");
    const first = encoder.tail(1024, memory, 4, 5, 1);
    memory.set(Buffer.from("world"), 4);
    const second = encoder.tail(1025, memory, 4, 5, 2);
    expect(second.toString()).toBe(',"src":1025,"data":"world","encoding":"utf8"}');
    expect(encoder.tail(1025, memory, 4, 5, 2)).toBe(second);
    // A client may still keep the first one.
    expect(first.toString()).toBe(',"src":1024,"data":"hello","encoding":"utf8"}');
  });

  test("once for each encoding that a client has asked for", () => {
    const encoder = new MessageEncoder();
    const memory = memoryWith("hi");
    const tails = ([undefined, "utf8", "hex", "base64"] as const).map((encoding) => ({
      encoding,
      tail: encoder.tail(7, memory, 4, 2, 1, encoding),
    }));
    expect(tails.map(({ tail }) => tail.toString())).toEqual([
      ',"src":7,"data":"hi","encoding":"utf8"}',
      ',"src":7,"data":"hi","encoding":"utf8"}',
      ',"src":7,"data":"6869","encoding":"hex"}',
      ',"src":7,"data":"aGk=","encoding":"base64"}',
    ]);
    for (const { encoding, tail } of tails) expect(encoder.tail(7, memory, 4, 2, 1, encoding)).toBe(tail);
  });

  test("guests number their messages alike, and are told apart", () => {
    const encoder = new MessageEncoder();
    const [one, other] = [memoryWith("one"), memoryWith("two")];
    const first = encoder.tail(7, one, 4, 3, 1);
    const second = encoder.tail(7, other, 4, 3, 1);
    expect([first, second].map(String)).toEqual([
      ',"src":7,"data":"one","encoding":"utf8"}',
      ',"src":7,"data":"two","encoding":"utf8"}',
    ]);
  });

  test("a message that had to wait is one of its own", () => {
    const encoder = new MessageEncoder();
    const memory = memoryWith("ab");
    const live = encoder.tail(7, memory, 4, 2, 1);
    expect(encoder.tail(7, memory, 4, 1, 0).toString()).toBe(',"src":7,"data":"a","encoding":"utf8"}');
    expect(encoder.tail(7, memory, 5, 1, 0).toString()).toBe(',"src":7,"data":"b","encoding":"utf8"}');
    expect(encoder.tail(7, memory, 4, 2, 1)).toBe(live);
  });
});

test("all JSON clients of a bridge that hear a message have it from one encoding", async () => {
  const running = await testBridge();
  await running.endpoint("echo");
  const path = "/ws/v1/demo/echo?share=shared";
  const clients: JsonClient[] = [];
  for (let i = 0; i < 5; i++) clients.push(await JsonClient.open(running, path));
  // It only looks on.
  const spy = vi.spyOn(MessageEncoder.prototype, "tail");
  onTestFinished(() => spy.mockRestore());
  for (const text of ["one", "two"]) {
    clients[0]?.send(text);
    for (const client of clients) expect(await client.next("message")).toMatchObject({ data: text });
  }
  const tails = spy.mock.results.map(({ value }) => value as Buffer);
  expect(tails).toHaveLength(10);
  expect(new Set(tails.slice(0, 5)).size).toBe(1);
  expect(new Set(tails).size).toBe(2);
});
