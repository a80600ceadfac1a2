import { describe, expect, test } from "vitest";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import type { Row } from "./name-service-guest.ts";
import { AGREED, Answering, call, DEAF, guestBridge, HOST, listed } from "./name-service-guest.ts";
import { eventually } from "./support.ts";

type Ns = "none" | "down" | "up" | "both";

const PATH = "/ws/v1/vm/svc";
/** What the guest announces by itself, where something has the plain path already. */
const GUESTS: Row = ["svc", "guest", "up", 1024, 1024, "connected", `${PATH}@1024`];

function host(ns: Ns, peer: number | null, state: Row[5]): Row {
  return ["svc", "host", ns, HOST, peer, state, PATH];
}

function up(peer: number | null, state: Row[5]): Row {
  return ["svc", "guest", "up", peer, peer, state, PATH];
}

/** One name on both sides, whatever each of them says of it. Linux, whose own address is 1024. */
const PAIRS: readonly [host: Ns, guest: Ns, rows: readonly Row[]][] = [
  ["none", "none", [host("none", null, "declared")]],
  ["none", "down", [host("none", null, "declared")]],
  ["none", "up", [host("none", null, "declared"), GUESTS]],
  ["none", "both", [host("none", null, "declared"), GUESTS]],
  ["down", "none", [host("down", null, "announced")]],
  ["down", "down", [host("down", 1024, "connected")]],
  ["down", "up", [host("down", null, "announced"), GUESTS]],
  // The second device of that name.
  ["down", "both", [host("down", 1025, "connected"), GUESTS]],
  ["up", "none", [up(null, "declared")]],
  ["up", "down", [up(null, "declared")]],
  ["up", "up", [up(1024, "connected")]],
  ["up", "both", [up(1024, "connected")]],
  ["both", "none", [host("both", null, "announced")]],
  ["both", "down", [host("both", 1024, "connected")]],
  ["both", "up", [host("both", 1024, "connected")]],
  ["both", "both", [host("both", 1025, "connected")]],
];

describe.skipIf(unsupported !== undefined)(titled("one name on both sides"), () => {
  test.each(PAIRS)("the host has it with ns %s, the guest with %s", async (ns, guestNs, rows) => {
    const { factory } = new Answering();
    const { running, guest, attach } = await guestBridge(
      [ns === "up" ? { name: "svc", ns } : { name: "svc", ns, address: HOST }],
      {
        services: { svc: { service: factory, ns: guestNs, ...(guestNs === "none" && { address: AGREED }) } },
      },
    );
    // It works on what it hears when its own services are there.
    guest.faults.delay = DEAF;
    const { vm } = await attach();
    guest.faults.delay = 0;
    await listed(running, 1, rows);
    guest.faults.delay = DEAF;
    await vm.reboot();
    guest.faults.delay = 0;
    await listed(running, 2, rows);
    expect(guest.nameService).toEqual(ns === "down" || ns === "both" ? [`+svc@${HOST}`] : []);
  });

  test("with ns down the two never become one, in either order, and each has its clients", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([], {
      services: { svc: { service: answering.factory, ns: "up" } },
    });
    await attach();
    await listed(running, 1, [["svc", "guest", "up", 1024, 1024, "connected", PATH]]);
    expect((await call(running, "POST", "", { name: "svc", address: HOST })).status).toBe(201);
    const two: Row[] = [
      ["svc", "guest", "up", 1024, 1024, "connected", PATH],
      ["svc", "host", "down", HOST, null, "announced", `${PATH}@${HOST}`],
    ];
    await listed(running, 1, two);
    answering.contexts[0]?.send(HOST, Buffer.from("hello"));
    await listed(running, 1, [
      two[0] as Row,
      ["svc", "host", "down", HOST, 1024, "connected", `${PATH}@1040`],
    ]);
    const clients = [
      await running.connect(PATH),
      await running.connect(`${PATH}@${HOST}`),
      await running.connect(`${PATH}?origin=host`),
    ];
    clients[0]?.send("a");
    clients[1]?.send("b");
    expect(await clients[0]?.text()).toBe("1024: a");
    // The clients of the host's service share its address.
    expect(await clients[1]?.text()).toBe("1024: b");
    expect(await clients[2]?.text()).toBe("1024: b");
    expect(guest.messages.find(({ text }) => text === "b")).toMatchObject({ src: HOST, dst: 1024 });
  });
});

/** A bridge with `svc` of both sides, and the guest attached. */
async function both(guestNs: Ns = "up") {
  const answering = new Answering();
  const all = await guestBridge([{ name: "svc", ns: "both", address: HOST }], {
    services: { svc: { service: answering.factory, ns: guestNs } },
  });
  all.guest.faults.delay = DEAF;
  await all.attach();
  all.guest.faults.delay = 0;
  await listed(all.running, 1, [host("both", guestNs === "both" ? 1025 : 1024, "connected")]);
  return { ...all, answering };
}

describe.skipIf(unsupported !== undefined)(titled("ns both"), () => {
  test("messages go to the announced half until another address of the guest speaks", async () => {
    const { running, guest, answering } = await both();
    const client = await running.connect(PATH);
    client.send("first");
    expect(await client.text()).toBe("1024: first");
    expect(guest.messages.at(-1)).toEqual({ src: HOST, dst: 1024, text: "first" });
    guest.announce("other", answering.factory, 2000);
    answering.contexts.at(-1)?.send(HOST, Buffer.from("me"));
    expect(await client.text()).toBe("me");
    client.send("second");
    expect(await client.text()).toBe("2000: second");
    // What is announced later does not change that: the source of the latest message goes before it.
    expect((await running.endpoint("svc")).peer).toBe(2000);
  });

  test("a half that the guest withdraws is no peer any more, and one that it announces again is", async () => {
    const { running, guest, answering } = await both();
    const client = await running.connect(PATH);
    guest.withdraw("svc");
    await listed(running, 1, [host("both", null, "announced")]);
    client.send("waits");
    await running.endpoint("svc", (each) => each.counters.accepted === 1);
    guest.announce("svc", answering.factory, 3000);
    expect(await client.text()).toBe("3000: waits");
    await listed(running, 1, [host("both", 3000, "connected")]);
    expect(client.socket.readyState).toBe(client.socket.OPEN);
    expect(guest.nameService).toEqual([`+svc@${HOST}`]);
  });

  test("a half whose guest spoke from elsewhere goes without a change", async () => {
    const { running, guest } = await both("both");
    guest.withdraw("svc");
    // The next thing that is heard of the guest.
    guest.announce("mark", new Answering().factory);
    await running.endpoint("mark");
    expect((await running.endpoint("svc")).peer).toBe(1025);
  });

  test("it has one other half: what is announced of that name beside it is an endpoint of its own", async () => {
    const { running, guest, answering } = await both();
    guest.announce("svc", answering.factory, 3000);
    await listed(running, 1, [
      host("both", 1024, "connected"),
      ["svc", "guest", "up", 3000, 3000, "connected", `${PATH}@3000`],
    ]);
    const client = await running.connect(`${PATH}@3000`);
    client.send("there");
    expect(await client.text()).toBe("3000: there");
  });

  test("two of one name have a half each", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge(
      [
        { name: "svc", ns: "both", address: HOST },
        { name: "svc", ns: "both", address: 1050 },
      ],
      { services: { svc: { service: answering.factory, ns: "up" } } },
    );
    await attach();
    await listed(running, 1, [
      host("both", 1024, "connected"),
      ["svc", "host", "both", 1050, null, "announced", `${PATH}@1050`],
    ]);
    guest.announce("svc", answering.factory, 3000);
    await listed(running, 1, [
      host("both", 1024, "connected"),
      ["svc", "host", "both", 1050, 3000, "connected", `${PATH}@1050`],
    ]);
  });

  test("what the guest has announced already is the other half, unless it has clients", async () => {
    const answering = new Answering();
    const { running, attach } = await guestBridge([], {
      services: {
        svc: { service: answering.factory, ns: "up" },
        busy: { service: answering.factory, ns: "up" },
      },
    });
    await attach();
    await running.endpoint("busy");
    await running.connect("/ws/v1/vm/busy");
    await call(running, "POST", "", { name: "svc", ns: "both", address: HOST });
    await call(running, "POST", "", { name: "busy", ns: "both", address: 1041 });
    await listed(running, 1, [
      host("both", 1024, "connected"),
      ["busy", "guest", "up", 1025, 1025, "connected", "/ws/v1/vm/busy"],
      ["busy", "host", "both", 1041, null, "announced", "/ws/v1/vm/busy@1041"],
    ]);
    const client = await running.connect(PATH);
    client.send("hello");
    expect(await client.text()).toBe("1024: hello");
  });

  test("when the host withdraws it, the guest's half is an endpoint of its own", async () => {
    const { running, guest } = await both();
    const client = await running.connect(PATH);
    const { id } = await running.endpoint("svc");
    expect((await call(running, "DELETE", `/${id}`)).status).toBe(204);
    expect((await client.closed).code).toBe(4002);
    await listed(running, 1, [["svc", "guest", "up", 1024, 1024, "connected", PATH]]);
    expect((await running.endpoint("svc")).id).not.toBe(id);
    const next = await running.connect(PATH);
    next.send("still there");
    expect(await next.text()).toBe("1024: still there");
    expect(guest.nameService).toEqual([`+svc@${HOST}`, `-svc@${HOST}`]);
  });
});

describe.skipIf(unsupported !== undefined)(titled("ns up, declared"), () => {
  test("an address that is given is the only one that will do", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([{ name: "svc", ns: "up", address: 3000 }], {
      services: { svc: { service: answering.factory, ns: "up" } },
    });
    const declared: Row = ["svc", "guest", "up", 3000, null, "declared", PATH];
    await listed(running, 1, [declared]);
    const client = await running.connect(PATH);
    client.send("early");
    await attach();
    await listed(running, 1, [declared, GUESTS]);
    guest.announce("svc", answering.factory, 3000);
    expect(await client.text()).toBe("3000: early");
    await listed(running, 1, [["svc", "guest", "up", 3000, 3000, "connected", PATH], GUESTS]);
  });

  test("what the guest has announced already is it", async () => {
    const { factory } = new Answering();
    const { running, attach } = await guestBridge([], { services: { svc: { service: factory, ns: "up" } } });
    await attach();
    const before = await running.endpoint("svc");
    const { status, body } = await call(running, "POST", "", { name: "svc", ns: "up" });
    expect(status).toBe(201);
    expect(body).toMatchObject({
      ...{ address: 1024, peer: 1024, state: "connected", origin: "guest", path: PATH },
    });
    expect(body.id).not.toBe(before.id);
    await listed(running, 1, [up(1024, "connected")]);
  });

  test("unless it has clients, which keep it", async () => {
    const { factory } = new Answering();
    const { running, attach } = await guestBridge([], { services: { svc: { service: factory, ns: "up" } } });
    await attach();
    await running.endpoint("svc");
    const client = await running.connect(PATH);
    expect((await call(running, "POST", "", { name: "svc", ns: "up" })).body).toMatchObject({
      ...{ address: null, state: "declared" },
    });
    expect(await running.endpoints()).toHaveLength(2);
    client.send("still there");
    expect(await client.text()).toBe("1024: still there");
  });

  test("when the guest withdraws it, its clients end with 4002 and it waits for the next announcement", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([{ name: "svc", ns: "up" }], {
      services: { svc: { service: answering.factory, ns: "up" } },
    });
    await attach();
    await listed(running, 1, [up(1024, "connected")]);
    const { id } = await running.endpoint("svc");
    const client = await running.connect(PATH);
    guest.withdraw("svc");
    expect((await client.closed).code).toBe(4002);
    await listed(running, 1, [up(null, "declared")]);
    const early = await running.connect(PATH);
    early.send("early");
    guest.announce("svc", answering.factory, 3000);
    expect(await early.text()).toBe("3000: early");
    await listed(running, 1, [up(3000, "connected")]);
    expect((await running.endpoint("svc")).id).toBe(id);
  });

  test("when the host withdraws it, its clients end with 4002 and the guest's is an endpoint of its own", async () => {
    const { factory } = new Answering();
    const { running, attach } = await guestBridge([{ name: "svc", ns: "up" }], {
      services: { svc: { service: factory, ns: "up" } },
    });
    await attach();
    await listed(running, 1, [up(1024, "connected")]);
    const { id } = await running.endpoint("svc");
    const client = await running.connect(PATH);
    expect((await call(running, "DELETE", `/${id}`)).status).toBe(204);
    expect((await client.closed).code).toBe(4002);
    await listed(running, 1, [up(1024, "connected")]);
    const after = await running.endpoint("svc");
    expect(after.id).not.toBe(id);
    expect((await call(running, "DELETE", `/${after.id}`)).body).toMatchObject({ code: "endpoint-of-guest" });
  });

  test("`local` is the address of its clients, one at a time unless they share it", async () => {
    const { factory } = new Answering();
    const { running, guest, attach } = await guestBridge([{ name: "svc", ns: "up", local: 2000 }], {
      services: { svc: { service: factory, ns: "up" } },
    });
    const client = await running.connect(PATH);
    client.send("early");
    await attach();
    expect(await client.text()).toBe("1024: early");
    expect(guest.messages.at(-1)).toMatchObject({ src: 2000, dst: 1024 });
    expect(await running.refusal(PATH)).toMatchObject({ status: 409, code: "local-in-use" });
    const other = await running.connect(`${PATH}?local=2001`);
    other.send("elsewhere");
    expect(await other.text()).toBe("1024: elsewhere");
    await client.close();
    await running.endpoint("svc", (each) => each.clients === 1);
    const shared = [
      await running.connect(`${PATH}?share=shared`),
      await running.connect(`${PATH}?share=shared`),
    ];
    shared[0]?.send("both");
    for (const each of shared) expect(await each.text()).toBe("1024: both");
  });
});

describe.skipIf(unsupported !== undefined)(titled("ns none"), () => {
  test("with a peer it is connected from the start, and what is sent arrives there when the guest does", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge(
      [{ name: "svc", ns: "none", address: HOST, peer: AGREED }],
      { services: { anything: { service: answering.factory, ns: "none", address: AGREED } } },
    );
    const rows = [host("none", AGREED, "connected")];
    await listed(running, 1, rows);
    const client = await running.connect(PATH);
    client.send("early");
    const { vm } = await attach();
    expect(await client.text()).toBe("48: early");
    expect(guest.messages).toEqual([{ src: HOST, dst: AGREED, text: "early" }]);
    // It stays where it is agreed to be, whoever else speaks.
    guest.announce("other", answering.factory, 3000);
    answering.contexts.at(-1)?.send(HOST, Buffer.from("me too"));
    expect(await client.text()).toBe("me too");
    client.send("second");
    expect(await client.text()).toBe("48: second");
    await vm.reboot();
    expect((await client.closed).code).toBe(4001);
    await listed(running, 2, rows);
    const next = await running.connect(PATH);
    next.send("third");
    expect(await next.text()).toBe("48: third");
    expect(guest.nameService).toEqual([]);
  });

  test("a client with an address of its own hears only what is sent to that", async () => {
    const { factory } = new Answering();
    const { running, guest, attach } = await guestBridge(
      [{ name: "svc", ns: "none", address: HOST, peer: AGREED }],
      { services: { anything: { service: factory, ns: "none", address: AGREED } } },
    );
    await attach();
    const own = await running.connect(`${PATH}?share=private`);
    const shared = await running.connect(PATH);
    own.send("mine");
    expect(await own.text()).toBe("48: mine");
    const source = guest.messages.at(-1)?.src;
    expect(source).toBeGreaterThanOrEqual(1024);
    expect(source).not.toBe(HOST);
    shared.send("ours");
    expect(await shared.text()).toBe("48: ours");
    expect([own.received, shared.received]).toEqual([0, 0]);
  });
});

describe.skipIf(unsupported !== undefined)(titled("announcements of the host"), () => {
  test("one name at several addresses: each is announced, has its path, and is withdrawn by itself", async () => {
    const { running, guest, attach } = await guestBridge([{ name: "svc", address: HOST }], { services: {} });
    await attach();
    const { body } = await call(running, "POST", "", { name: "svc", address: 1050 });
    await call(running, "POST", "", { name: "svc", address: 1060, ns: "none" });
    const row = (address: number, ns: Ns, state: Row[5], path: string): Row => [
      ...(["svc", "host", ns, address, null, state, path] as const),
    ];
    await listed(running, 1, [
      row(HOST, "down", "announced", PATH),
      row(1050, "down", "announced", `${PATH}@1050`),
      row(1060, "none", "declared", `${PATH}@1060`),
    ]);
    await call(running, "DELETE", `/${body.id}`);
    await listed(running, 1, [
      row(HOST, "down", "announced", PATH),
      row(1060, "none", "declared", `${PATH}@1060`),
    ]);
    await eventually("the withdrawal", () => (guest.nameService.length === 3 ? true : undefined));
    expect(guest.nameService).toEqual([`+svc@${HOST}`, "+svc@1050", "-svc@1050"]);
  });

  test("made or withdrawn while the guest is paused: told when it goes on, each once", async () => {
    const { running, guest, attach } = await guestBridge(
      [
        { name: "kept", address: HOST },
        { name: "gone", address: 1041 },
      ],
      { services: {} },
    );
    const { vm } = await attach();
    await running.endpoint("gone", (each) => each.state === "announced");
    await vm.pause();
    const { body } = await call(running, "POST", "", { name: "new", address: 1042 });
    expect(body).toMatchObject({ state: "declared", generation: 1 });
    const { id } = await running.endpoint("gone");
    expect((await call(running, "DELETE", `/${id}`)).status).toBe(204);
    const brief = await call(running, "POST", "", { name: "brief", address: 1043 });
    await call(running, "DELETE", `/${brief.body.id}`);
    await vm.resume();
    await running.endpoint("new", (each) => each.state === "announced");
    await eventually("all is told", () => (guest.nameService.includes("-gone@1041") ? true : undefined));
    // Of what came and went meanwhile the guest need not hear.
    expect(guest.nameService).toEqual(["+kept@1040", "+gone@1041", "+new@1042", "-gone@1041"]);
    await vm.reboot();
    await running.endpoint("new", (each) => each.state === "announced" && each.generation === 2);
    expect(guest.nameService.toSorted()).toEqual(["+kept@1040", "+new@1042"]);
  });

  test("they wait for buffers, none is dropped, and a reset announces all once more", async () => {
    const names = Array.from({ length: 20 }, (_, i) => `s${i}`);
    const { running, guest, attach } = await guestBridge(
      names.map((name, i) => ({ name, address: HOST + i })),
      { profile: "rpmsg-lite", services: {} },
    );
    const states = async () => (await running.endpoints()).map((each) => each.state);
    const told = async (count: number) =>
      eventually(`${count} are told`, async () =>
        (await states()).filter((each) => each === "announced").length === count ? true : undefined,
      );
    guest.faults.neverRefill = true;
    const { vm } = await attach();
    await told(8);
    expect(guest.nameService).toHaveLength(8);
    await vm.reboot();
    await told(8);
    expect((await running.endpoints()).map((each) => each.generation)).toEqual(names.map(() => 2));
    expect(guest.nameService).toHaveLength(8);
    guest.faults.neverRefill = false;
    await told(20);
    expect(guest.nameService).toEqual(names.map((name, i) => `+${name}@${HOST + i}`));
  });

  test("withdrawn before they found a buffer: the guest hears both, in this order", async () => {
    const { running, guest, attach } = await guestBridge(
      Array.from({ length: 9 }, (_, i) => ({ name: `s${i}`, address: HOST + i })),
      { profile: "rpmsg-lite", services: {} },
    );
    guest.faults.neverRefill = true;
    await attach();
    await running.endpoint("s7", (each) => each.state === "announced");
    const { id } = await running.endpoint("s8");
    await call(running, "DELETE", `/${id}`);
    guest.faults.neverRefill = false;
    await eventually("the withdrawal", () => (guest.nameService.length === 10 ? true : undefined));
    expect(guest.nameService.slice(8)).toEqual(["+s8@1048", "-s8@1048"]);
    expect((await running.endpoints()).map((each) => each.name)).not.toContain("s8");
  });
});
