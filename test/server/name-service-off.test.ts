import { describe, expect, test } from "vitest";
import { bits, encodeNameService, feature, NAME_SERVICE_ADDRESS } from "../../rpmsg/index.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import type { Declaration } from "./name-service-guest.ts";
import {
  AGREED,
  Answering,
  attach,
  attachWithFeatures,
  call,
  guestBridge,
  HOST,
  listed,
} from "./name-service-guest.ts";
import type { LogLine } from "./support.ts";
import { eventually } from "./support.ts";

const WITHOUT = bits(feature.VERSION_1);

/** A guest that has not negotiated RPMSG_F_NS, with a service at an agreed address. */
async function quiet(declarations: Declaration[] = []) {
  const lines: LogLine[] = [];
  const answering = new Answering();
  const all = await guestBridge(declarations, {}, (line) => lines.push(line));
  const attachQuiet = () =>
    attachWithFeatures(all.path, WITHOUT, {
      services: {
        agreed: { service: answering.factory, ns: "none", address: AGREED },
        // Its announcement cannot be sent.
        loud: { service: answering.factory, ns: "up" },
      },
    });
  const attached = () =>
    eventually("attached", async () =>
      (await all.running.guest("vm")).state === "attached" ? true : undefined,
    );
  return { ...all, attach: attachQuiet, attached, lines, answering };
}

describe.skipIf(unsupported !== undefined)(titled("without RPMSG_F_NS"), () => {
  test.each(["down", "up", "both"] as const)("ns %s is refused with 409, and nothing is left", async (ns) => {
    const { running, attach, attached } = await quiet();
    await attach();
    await attached();
    expect((await running.guest("vm")).features).not.toContain("RPMSG_F_NS");
    const address = ns === "up" ? {} : { address: HOST };
    const { status, body } = await call(running, "POST", "", { name: "svc", ns, ...address });
    expect({ status, code: body.code }).toEqual({ status: 409, code: "name-service-off" });
    expect(body.detail).toMatch(/guest "vm" has not negotiated name service/);
    expect(await running.endpoints()).toEqual([]);
    // Its address is free.
    const none = await call(running, "POST", "", { name: "svc", ns: "none", address: HOST });
    expect(none.status).toBe(201);
  });

  test("a client cannot announce itself either", async () => {
    const { running, attach, attached } = await quiet();
    await attach();
    await attached();
    expect(await running.refusal("/ws/v1/vm?announce=svc")).toMatchObject({
      ...{ status: 409, code: "name-service-off" },
    });
    expect(await running.endpoints()).toEqual([]);
  });

  test("ns none works, both ways, and the guest hears no name service", async () => {
    const { running, attach, attached, answering } = await quiet();
    const { guest } = await attach();
    await attached();
    const known = await call(running, "POST", "", { name: "a", ns: "none", address: HOST, peer: AGREED });
    const learned = await call(running, "POST", "", { name: "b", ns: "none", address: 1041 });
    expect([known.status, learned.status]).toEqual([201, 201]);
    const client = await running.connect("/ws/v1/vm/a");
    client.send("hello");
    expect(await client.text()).toBe("48: hello");
    const other = await running.connect("/ws/v1/vm/b");
    answering.contexts[0]?.send(1041, Buffer.from("and you?"));
    expect(await other.text()).toBe("and you?");
    other.send("fine");
    expect(await other.text()).toBe("48: fine");
    await listed(running, 1, [
      ["a", "host", "none", HOST, AGREED, "connected", "/ws/v1/vm/a"],
      ["b", "host", "none", 1041, AGREED, "connected", "/ws/v1/vm/b"],
    ]);
    expect(guest.nameService).toEqual([]);
    expect(guest.messages.map(({ src, dst }) => [src, dst])).toEqual([
      [HOST, AGREED],
      [1041, AGREED],
    ]);
  });

  test("what was declared before stays declared, one line of the log says so, and its clients wait", async () => {
    const { running, attach, attached, lines } = await quiet([
      { name: "down", address: HOST },
      { name: "both", ns: "both", address: 1041 },
      { name: "up", ns: "up" },
      { name: "none", ns: "none", address: 1042, peer: AGREED },
    ]);
    const client = await running.connect("/ws/v1/vm/down");
    const { guest, close } = await attach();
    await attached();
    const none = await running.connect("/ws/v1/vm/none");
    none.send("hello");
    expect(await none.text()).toBe("48: hello");
    expect((await running.endpoints()).map(({ name, state }) => [name, state])).toEqual([
      ["down", "declared"],
      ["both", "declared"],
      ["up", "declared"],
      ["none", "connected"],
    ]);
    expect(guest.nameService).toEqual([]);
    expect(lines.filter(({ event }) => event === "name-service-off")).toEqual([
      expect.objectContaining({ guest: "vm", level: 40, endpoints: 3 }),
    ]);
    expect(client.socket.readyState).toBe(client.socket.OPEN);
    close();
    expect((await client.closed).code).toBe(4001);
  });

  test("a service of the host that the guest knows nothing of is still reached by its address", async () => {
    const { running, attach, attached, answering } = await quiet([{ name: "svc", address: HOST }]);
    await attach();
    await attached();
    const client = await running.connect("/ws/v1/vm/svc");
    answering.contexts[0]?.send(HOST, Buffer.from("found you"));
    expect(await client.text()).toBe("found you");
    client.send("hello");
    expect(await client.text()).toBe("48: hello");
    await listed(running, 1, [["svc", "host", "down", HOST, AGREED, "connected", "/ws/v1/vm/svc"]]);
  });

  test("messages to address 53 are counted, dropped, and answered by nothing", async () => {
    const { running, attach, attached, answering } = await quiet([{ name: "svc", address: HOST }]);
    const { guest } = await attach();
    await attached();
    const [service] = answering.contexts;
    const message = encodeNameService({ name: "evil", address: 3000, created: true });
    for (let i = 0; i < 3; i++) service?.send(NAME_SERVICE_ADDRESS, message);
    service?.send(NAME_SERVICE_ADDRESS, Buffer.from("not even one"));
    await eventually("they are counted", async () =>
      (await running.guest("vm")).counters.nameServiceOff === 4 ? true : undefined,
    );
    const { counters } = await running.guest("vm");
    expect(counters).toMatchObject({ nameServiceMalformed: 0, nameServiceIgnored: 0, unknownAddress: 0 });
    expect((await running.endpoints()).map((each) => each.name)).toEqual(["svc"]);
    expect(guest.messages).toEqual([]);
  });

  test("a guest that has it comes next: all is announced", async () => {
    const quietly = await quiet([{ name: "svc", address: HOST }]);
    const { running, attached, guest } = quietly;
    const { close } = await quietly.attach();
    await attached();
    close();
    await eventually("waiting", async () =>
      (await running.guest("vm")).state === "waiting" ? true : undefined,
    );
    // Nobody knows yet what the next one can do.
    expect((await call(running, "POST", "", { name: "more", address: 1041 })).status).toBe(201);
    await attach(guest, quietly.path);
    await running.endpoint("more", (each) => each.state === "announced");
    expect(guest.nameService).toEqual(["+svc@1040", "+more@1041"]);
  });
});
