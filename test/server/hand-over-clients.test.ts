import { once } from "node:events";
import { statSync } from "node:fs";
import { request } from "node:https";
import type { TLSSocket } from "node:tls";
import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { Authority } from "./certificates.ts";
import { Dynasty } from "./hand-over-support.ts";
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
