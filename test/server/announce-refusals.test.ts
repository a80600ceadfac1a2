import { request } from "node:http";
import { describe, expect, test } from "vitest";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";

const HOST = { name: "raw", address: 1040 };

async function hostBridge() {
  const running = await testBridge({ guests: { demo: { kind: "emulated", endpoints: [HOST] } } });
  await running.endpoint("raw", (each) => each.state === "connected");
  return running;
}

/** Nothing that is refused may leave an endpoint behind. */
async function expectNothingLeft({ endpoints }: RunningBridge): Promise<void> {
  const host = (await endpoints()).filter((each) => each.origin === "host");
  expect(host.map((each) => [each.name, each.clients])).toEqual([["raw", 0]]);
}

describe.each(["rpmsg.v1.raw", "rpmsg.v1.json"])(
  "an announcement that cannot be is refused before the upgrade: %s",
  (protocol) => {
    const protocols = [protocol];

    test.each([
      ["demo?announce=", 400, "name-invalid"],
      [`demo?announce=${"x".repeat(32)}`, 400, "name-invalid"],
      [`demo?announce=${"%C3%BC".repeat(16)}`, 400, "name-invalid"],
      ["demo?announce=a%00b", 400, "name-invalid"],
      ["demo?announce=x&local=1040", 409, "address-in-use"],
      ["demo?announce=raw&local=0x410", 409, "address-in-use"],
      ["demo?announce=x&local=53", 409, "address-in-use"],
      ["nobody?announce=x", 404, "guest-unknown"],
      ["nobody?announce=", 404, "guest-unknown"],
      ["demo", 400, "bad-request"],
      ["demo?", 400, "bad-request"],
      ["demo?local=2000", 400, "bad-request"],
      ["demo?announce=x&announce=y", 400, "bad-request"],
      ["demo?announce=x&local=x", 400, "bad-request"],
      ["demo?announce=x&local=4294967295", 400, "bad-request"],
      ["demo?announce=x&share=exclusive", 400, "bad-request"],
      ["demo?announce=x&share=shared", 400, "bad-request"],
      ["demo?announce=x&takeover=1", 400, "bad-request"],
      ["demo?announce=x&resume=y&after=0", 400, "bad-request"],
      ["demo?announce=x&slow=never", 400, "bad-request"],
      ["demo/?announce=x", 404, "not-found"],
      ["demo/raw?announce=x", 400, "bad-request"],
    ])("%s is %i %s", async (path, status, code) => {
      const running = await hostBridge();
      expect(await running.refusal(`/ws/v1/${path}`, { protocols })).toMatchObject({ status, code });
      await expectNothingLeft(running);
    });

    test("an address that a client has, or another service", async () => {
      const running = await hostBridge();
      const client = await running.connect("/ws/v1/demo/echo?local=2000");
      const service = await running.connect("/ws/v1/demo?announce=x&local=3000");
      for (const local of [2000, 3000]) {
        const path = `/ws/v1/demo?announce=x&local=${local}`;
        expect(await running.refusal(path, { protocols })).toMatchObject({
          status: 409,
          code: "address-in-use",
        });
      }
      await client.close();
      await service.close();
      const next = await running.connect("/ws/v1/demo?announce=x&local=2000", protocols);
      await next.close();
      await running.connect("/ws/v1/demo?announce=x&local=3000", protocols);
    });

    test("more endpoints than may be declared", async () => {
      const running = await testBridge({ limits: { declaredEndpoints: 2 } });
      const services = [
        await running.connect("/ws/v1/demo?announce=x", protocols),
        await running.connect("/ws/v1/demo?announce=y", protocols),
      ];
      const refused = { status: 409, code: "too-many-endpoints" };
      expect(await running.refusal("/ws/v1/demo?announce=z", { protocols })).toMatchObject(refused);
      for (const service of services) await service.close();
      await running.connect("/ws/v1/demo?announce=z", protocols);
    });

    test.each([
      ["without a key", { "sec-websocket-version": "13" }, 400],
      ["with a key that is none", { "sec-websocket-version": "13", "sec-websocket-key": "short" }, 400],
      [
        "of another version",
        { "sec-websocket-version": "9", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" },
        426,
      ],
    ])("a handshake %s announces nothing", async (_what, headers, refused) => {
      const running = await hostBridge();
      const told = (await running.guest("demo")).counters.messagesToGuest;
      const head = {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-protocol": protocol,
        ...headers,
      };
      const status = await new Promise((resolve, reject) => {
        request(`${running.url}/ws/v1/demo?announce=x&local=2000`, { headers: head }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on("error", reject)
          .end();
      });
      expect(status).toBe(refused);
      await expectNothingLeft(running);
      expect((await running.guest("demo")).counters.messagesToGuest).toBe(told);
      await running.connect("/ws/v1/demo?announce=x&local=2000");
    });
  },
);
