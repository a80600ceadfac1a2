import { describe, expect, test } from "vitest";
import { opcode, RawClient } from "./raw-client.ts";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";

/** More than the kernel's socket buffers hold, in messages of 496 bytes. */
const BACKLOG = 30_000;

/** Waits until the guest has sent that much more. */
async function streamed({ endpoint }: RunningBridge): Promise<void> {
  const { messagesFromGuest } = (await endpoint("source")).counters;
  await endpoint("source", (each) => each.counters.messagesFromGuest >= messagesFromGuest + BACKLOG);
}

/** A client in the middle of a burst that reads nothing more. */
async function startBurst(slowReaderBytes: number): Promise<{ running: RunningBridge; client: RawClient }> {
  const running = await testBridge({ limits: { slowReaderBytes } });
  const client = await RawClient.open(running.url, "/ws/v1/demo/source");
  client.send(opcode.binary, Buffer.from("10000000 496"));
  await client.frame((each) => each.opcode === opcode.binary);
  client.socket.pause();
  return { running, client };
}

/** The close code, and how many frames came after it. */
async function ending(client: RawClient): Promise<{ code: number; after: number }> {
  const code = await client.closeCode();
  client.socket.end();
  await client.ended;
  const at = client.frames.findIndex((each) => each.opcode === opcode.close);
  return { code, after: client.frames.length - at - 1 };
}

describe("no frame follows a close frame (RFC 6455, 5.5.1)", () => {
  test("when the bridge closes a slow reader", async () => {
    const { running, client } = await startBurst(65_536);
    await running.endpoint("source", (each) => each.clients === 0);
    client.socket.resume();
    expect(await ending(client)).toEqual({ code: 1013, after: 0 });
  });

  // ws answers these by itself, and the channel hears of it when the connection is over.
  test.each([
    ["breaks the protocol", opcode.text, [0xff], 1007],
    ["closes", opcode.close, [0x03, 0xe8], 1000],
  ])("when the client %s while much waits for it", async (_what, kind, payload, code) => {
    const { running, client } = await startBurst(2 ** 28);
    await streamed(running);
    client.send(kind, Buffer.from(payload));
    await streamed(running);
    client.socket.resume();
    expect(await ending(client)).toEqual({ code, after: 0 });
  });
});
