import { once } from "node:events";
import { statSync } from "node:fs";
import { request } from "node:https";
import type { TLSSocket } from "node:tls";
import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import type { ServerFrame } from "../../schemas/index.ts";
import { Authority } from "./certificates.ts";
import { Dynasty } from "./hand-over-support.ts";
import { JsonClient } from "./json-client.ts";
import { MuxClient } from "./mux-client.ts";
import { eventually, testDirectory } from "./support.ts";

describe("at a hand-over", { timeout: 60_000 }, () => {
  test("mux clients are closed with 1012, and subscribe again at the successor", async () => {
    const { dynasty, first } = await Dynasty.found();
    await dynasty.attach();
    await dynasty.endpoint("echo");
    const client = await MuxClient.open(dynasty.url);
    await client.subscribed(1, "/ws/v1/vm/echo", 10_000);
    client.send(1, "before", 7);
    expect((await client.take("message", 1)).bytes.toString()).toBe("before");
    await client.take("sent", 1);
    await dynasty.handOver(first);
    expect(await client.closed).toBe(1012);
    const again = await MuxClient.open(dynasty.url);
    await again.subscribed(1, "/ws/v1/vm/echo", 10_000);
    again.send(1, "after", 8);
    expect((await again.take("message", 1)).bytes.toString()).toBe("after");
    expect((await dynasty.endpoint("echo")).counters).toMatchObject({
      messagesToGuest: 2,
      messagesFromGuest: 2,
      dropped: 0,
    });
  });

  test("what waits for credit goes over: exactly that comes after it, and what comes then costs credit", async () => {
    const { dynasty, first } = await Dynasty.found();
    await dynasty.attach();
    await dynasty.endpoint("source");
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/source?encoding=hex&credit=2");
    /** The guest sends so many more: message n begins with n as 32 bits. */
    const ask = async (by: JsonClient, count: number, inAll: number): Promise<void> => {
      by.send(`${count} 4`);
      await dynasty.endpoint("source", ({ counters }) => counters.messagesFromGuest === inAll);
    };
    const numbered = (frames: ServerFrame[]) =>
      frames.map((frame) =>
        frame.type === "message" ? [frame.seq, Buffer.from(frame.data, "hex").readUInt32LE()] : frame,
      );
    await ask(client, 10, 10);
    expect(numbered(await client.all())).toEqual([
      [1, 0],
      [2, 1],
    ]);
    await dynasty.handOver(first);
    expect((await client.closed).code).toBe(1012);
    // It has taken one of the two: the other one comes again.
    const again = await client.resume(1, "&encoding=hex&credit=3");
    expect(again.hello.resumed).toBe(true);
    expect(numbered(await again.all())).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => [n + 1, n]));
    // Those were six more than it had granted.
    await ask(again, 3, 13);
    again.write({ type: "credit", messages: 6 });
    expect(numbered(await again.all())).toEqual([]);
    again.write({ type: "credit", messages: 2 });
    expect(numbered(await again.all())).toEqual([
      [11, 0],
      [12, 1],
    ]);
    again.write({ type: "credit", messages: 100 });
    expect(numbered(await again.all())).toEqual([[13, 2]]);
    expect((await dynasty.endpoint("source")).counters).toMatchObject({ dropped: 0, messagesFromGuest: 13 });
  });

  test("a client with credit that reads on after two hand-overs has every message once", async () => {
    let { dynasty, first: bridge } = await Dynasty.found();
    await dynasty.attach();
    await dynasty.endpoint("source");
    const channel = await dynasty.channel("source", { credit: 8 });
    await channel.send("500 4");
    await dynasty.endpoint("source", ({ counters }) => counters.messagesFromGuest === 500);
    const numbers: number[] = [];
    const take = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++)
        numbers.push(Buffer.from((await channel.receive()).data).readUInt32LE());
    };
    await take(50);
    for (let i = 0; i < 2; i++) {
      bridge = await dynasty.handOver(bridge);
      await take(100);
    }
    await take(250);
    expect(numbers).toEqual(Array.from({ length: 500 }, (_, i) => i));
    // Nothing else waits: the next one is of what is asked for now.
    await channel.send("1 8");
    expect((await channel.receive()).data).toHaveLength(8);
    expect((await dynasty.endpoint("source")).counters).toMatchObject({ dropped: 0, messagesFromGuest: 501 });
  });

  test("a listener with TLS goes over, with its port; the certificate is the successor's", async () => {
    const authority = new Authority(testDirectory());
    const { dynasty, first } = await Dynasty.found({ tls: authority.issue("first") });
    await dynasty.attach();
    const { url } = dynasty;
    expect(url).toMatch(/^https:/);
    const ca = authority.pem;
    /** Whose certificate answers, and whether the bridge is ready. */
    const ask = () =>
      new Promise<[name: string, status: number | undefined]>((resolve, reject) => {
        request(`${url}/readyz`, { agent: false, ca }, (response) => {
          const socket = response.socket as TLSSocket;
          const { subject } = socket.getPeerCertificate();
          response.resume();
          resolve([subject.CN as string, response.statusCode]);
        })
          .on("error", reject)
          .end();
      });
    /** As soon as the endpoint is there. */
    const open = (): Promise<WebSocket> =>
      eventually("a connection", async () => {
        const socket = new WebSocket(`${url.replace("https", "wss")}/ws/v1/vm/echo`, { ca });
        return once(socket, "open").then(
          () => socket,
          () => undefined,
        );
      });
    expect(await ask()).toEqual(["first", 200]);
    const client = await open();
    const closed = once(client, "close");
    await dynasty.handOver(first, { tls: authority.issue("second") });
    expect((await closed)[0]).toBe(1012);
    expect(dynasty.url).toBe(url);
    expect(await ask()).toEqual(["second", 200]);
    const again = await open();
    again.send("over TLS");
    expect(String((await once(again, "message"))[0])).toBe("over TLS");
    again.close();
  });

  test("only the bridge's user can connect to the socket for it, of every bridge in turn", async () => {
    let { dynasty, first: bridge } = await Dynasty.found();
    for (let i = 0; i < 2; i++) {
      const { mode } = statSync(dynasty.handover);
      expect((mode & 0o777).toString(8)).toBe("600");
      bridge = await dynasty.handOver(bridge);
    }
  });
});
