import { expect, test } from "vitest";
import { closeCode } from "../../schemas/index.ts";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually, testBridge } from "./support.ts";

test("messages of 1 to 496 bytes come back unchanged, one for one and in order", async () => {
  const { connect, endpoint } = await testBridge();
  const client = await connect("/ws/v1/demo/echo");
  const sent = Array.from({ length: 496 }, (_, i) => Buffer.alloc(i + 1, i * 7 + 1));
  for (const message of sent) client.send(message);
  for (const message of sent) expect((await client.next()).equals(message)).toBe(true);
  const total = (496 * 497) / 2;
  expect((await endpoint("echo")).counters).toEqual({
    accepted: 496,
    messagesToGuest: 496,
    bytesToGuest: total,
    undelivered: 0,
    unconfirmed: 0,
    messagesFromGuest: 496,
    bytesFromGuest: total,
    noClient: 0,
    messagesToClients: 496,
    dropped: 0,
  });
});

test("an empty message is a message", async () => {
  const { connect } = await testBridge();
  const client = await connect("/ws/v1/demo/echo");
  client.send("");
  client.send("after");
  expect(await client.text()).toBe("");
  expect(await client.text()).toBe("after");
});

test("a text message is sent as its UTF-8 bytes, and answers are binary", async () => {
  const { connect } = await testBridge();
  const client = await connect("/ws/v1/demo/echo");
  const binary: boolean[] = [];
  client.socket.on("message", (_data, isBinary) => binary.push(isBinary));
  client.socket.send("grüß 🦊");
  expect(await client.next()).toEqual(Buffer.from("grüß 🦊", "utf8"));
  expect(binary).toEqual([true]);
});

test.each([
  ["no subprotocol", [], ""],
  ["rpmsg.v1.raw", ["rpmsg.v1.raw"], "rpmsg.v1.raw"],
  ["rpmsg.v1.raw among others", ["rpmsg.v9.other", "rpmsg.v1.raw"], "rpmsg.v1.raw"],
])("offered %s, the answer names what is spoken", async (_what, offered, chosen) => {
  const { connect } = await testBridge();
  const client = await connect("/ws/v1/demo/echo", offered);
  expect(client.socket.protocol).toBe(chosen);
  expect(client.socket.extensions).toBe("");
  client.send("hello");
  expect(await client.text()).toBe("hello");
});

test("a subprotocol that nobody knows is refused, and the answer lists those that are known", async () => {
  const { refusal } = await testBridge();
  const problem = await refusal("/ws/v1/demo/echo", { protocols: ["rpmsg.v9.other", "chat"] });
  expect(problem).toMatchObject({ status: 400, code: "bad-request" });
  expect(problem.detail).toContain("rpmsg.v9.other");
  expect(problem.detail).toContain("want rpmsg.v1.raw");
});

test.each([497, 512, 65_535])("a message of %i bytes closes with 1009 and is not sent", async (size) => {
  const { connect, endpoint } = await testBridge();
  const client = await connect("/ws/v1/demo/sink");
  client.send(Buffer.alloc(496));
  client.send(Buffer.alloc(size));
  client.send("never taken");
  expect((await client.closed).code).toBe(closeCode.tooBig);
  expect((await endpoint("sink")).counters).toMatchObject({ messagesToGuest: 1, bytesToGuest: 496 });
  const other = await connect("/ws/v1/demo/sink");
  other.send("stat");
  expect(await other.text()).toBe('{"messages":1,"bytes":496}');
});

test("a message beyond what any guest could take ends with 1009 too", async () => {
  const { connect, endpoint } = await testBridge();
  const client = await connect("/ws/v1/demo/sink");
  client.send(Buffer.alloc(65_536));
  expect((await client.closed).code).toBe(closeCode.tooBig);
  expect((await endpoint("sink")).counters.messagesToGuest).toBe(0);
});

test("a text message that is not UTF-8 closes with 1007, and is not sent", async () => {
  const { url, endpoint } = await testBridge();
  const client = await RawClient.open(url, "/ws/v1/demo/sink");
  client.send(opcode.text, Buffer.from([0x61, 0xff, 0x62]));
  expect(await client.closeCode()).toBe(1007);
  expect((await endpoint("sink")).counters.messagesToGuest).toBe(0);
});

test("a message may come in fragments, at most 16 of them", async () => {
  const { url, endpoint } = await testBridge();
  const client = await RawClient.open(url, "/ws/v1/demo/echo");
  const fragments = (count: number): void => {
    for (let i = 0; i < count; i++) {
      client.send(i === 0 ? opcode.binary : opcode.continuation, Buffer.from([65 + i]), i === count - 1);
    }
  };
  fragments(16);
  expect((await client.frame((each) => each.opcode === opcode.binary)).payload.toString()).toBe(
    "ABCDEFGHIJKLMNOP",
  );
  fragments(17);
  expect(await client.closeCode()).toBe(1008);
  expect((await endpoint("echo")).counters.messagesToGuest).toBe(1);
});

test.each([
  ["an unmasked frame", Buffer.from([0x82, 1, 65]), 1002],
  ["a reserved opcode", Buffer.from([0x83, 0x80, 0, 0, 0, 0]), 1002],
  ["a compressed frame that was not agreed", Buffer.from([0xc2, 0x80, 0, 0, 0, 0]), 1002],
])("%s ends the connection and costs nobody else", async (_what, bytes, code) => {
  const { url, connect, endpoint } = await testBridge();
  const other = await connect("/ws/v1/demo/echo");
  const client = await RawClient.open(url, "/ws/v1/demo/echo");
  client.socket.write(bytes);
  expect(await client.closeCode()).toBe(code);
  client.socket.end();
  await client.ended;
  await endpoint("echo", (each) => each.clients === 1);
  other.send("still here");
  expect(await other.text()).toBe("still here");
});

test("clients are counted while they are connected", async () => {
  const { connect, endpoint } = await testBridge();
  expect((await endpoint("echo")).clients).toBe(0);
  const clients = [await connect("/ws/v1/demo/echo"), await connect("/ws/v1/demo/echo")];
  expect((await endpoint("echo")).clients).toBe(2);
  clients[0]?.socket.terminate();
  await eventually("the end", async () => ((await endpoint("echo")).clients === 1 ? true : undefined));
  await clients[1]?.close();
  expect((await endpoint("echo")).clients).toBe(0);
});
