import fc from "fast-check";
import { expect, test } from "vitest";
import type { ServerSentEvent } from "../../client/sse.ts";
import { serverSentEvents } from "../../client/sse.ts";

/** What comes of bytes in those pieces. */
async function read(pieces: Uint8Array[]): Promise<ServerSentEvent[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
  const events: ServerSentEvent[] = [];
  for await (const event of serverSentEvents(body, 10_000)) events.push(event);
  return events;
}

const bytes = (text: string) => new TextEncoder().encode(text);

const stream = [
  ":hello\n\n", // a comment
  "id: 1\nevent: guest\ndata: {}\n\n",
  "data:no space\rdata:  two lines, one space left\r\r", // \r alone
  'event: endpoint\r\nid: 2\r\ndata: {"name":"ä🚂"}\r\n\r\n', // \r\n
  "event: nothing\n\n", // no data: no event, and the next one is not of that type
  "data\n\n", // a field without a colon has no value
  "id: 3\0\nretry: 10\nunknown: x\ndata: kept id\n\n", // an id with NUL does not count
  "id\ndata: id taken back\n\n",
  "data: no end",
].join("");

const events = [
  { event: "guest", data: "{}", id: "1" },
  { event: "message", data: "no space\n two lines, one space left", id: "1" },
  { event: "endpoint", data: '{"name":"ä🚂"}', id: "2" },
  { event: "message", data: "", id: "2" },
  { event: "message", data: "kept id", id: "2" },
  { event: "message", data: "id taken back", id: "" },
];

test("a stream of server-sent events, whole", async () => {
  expect(await read([bytes(stream)])).toEqual(events);
});

test("the same, wherever it is cut", async () => {
  const all = bytes(stream);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(all.length)), async (cuts) => {
      const ends = [...cuts.toSorted((a, b) => a - b), all.length];
      const pieces = ends.map((end, i) => all.slice(ends[i - 1] ?? 0, end));
      expect(await read(pieces)).toEqual(events);
    }),
  );
  expect(await read([...all].map((byte) => Uint8Array.of(byte)))).toEqual(events);
});

test("an event without end is an error", async () => {
  const endless = (piece: string) => read(Array.from({ length: 40 }, () => bytes(piece.repeat(2 ** 15))));
  await expect(endless("x")).rejects.toThrow("without end");
  await expect(endless("data:\n")).rejects.toThrow("without end");
});

test("a stream on which nothing comes is dead", async () => {
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>({
    cancel: () => {
      cancelled = true;
    },
  });
  await expect(serverSentEvents(body, 5).next()).rejects.toThrow("nothing came for 5 ms");
  expect(cancelled).toBe(true);
});

test("who leaves the loop ends the stream", async () => {
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(bytes("data: again\n\n")),
    cancel: () => {
      cancelled = true;
    },
  });
  for await (const event of serverSentEvents(body, 10_000)) {
    expect(event.data).toBe("again");
    break;
  }
  expect(cancelled).toBe(true);
});
