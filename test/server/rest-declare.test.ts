import { describe, expect, test } from "vitest";
import type { Endpoint as EndpointBody } from "../../schemas/index.ts";
import { Config, Endpoint, Problem } from "../../schemas/index.ts";
import { loadConfig } from "../../server/config/load-config.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { MuxClient } from "./mux-client.ts";
import type { Declaration } from "./name-service-guest.ts";
import { Answering, guestBridge, HOST } from "./name-service-guest.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, testBridge } from "./support.ts";

interface Answer {
  status: number;
  location: string | null;
  text: string;
  body: unknown;
}

/** A request below `/api/v1/guests`; an object is sent as JSON. */
async function ask(
  running: RunningBridge,
  method: string,
  path: string,
  body?: object | string,
  type = "application/json",
): Promise<Answer> {
  const response = await fetch(`${running.url}/api/v1/guests/${path}`, {
    method,
    ...(body !== undefined && {
      headers: { "content-type": type },
      body: typeof body === "string" ? body : JSON.stringify(body),
    }),
  });
  const text = await response.text();
  return {
    status: response.status,
    location: response.headers.get("location"),
    text,
    body: text === "" ? undefined : JSON.parse(text),
  };
}

async function declare(running: RunningBridge, body: object, guest = "demo"): Promise<EndpointBody> {
  const { status, body: endpoint } = await ask(running, "POST", `${guest}/endpoints`, body);
  expect(status).toBe(201);
  return Endpoint.strict().parse(endpoint);
}

async function expectProblem(
  answer: Answer | Promise<Answer>,
  status: number,
  code: string,
): Promise<Problem> {
  const { body, status: actual } = await answer;
  const problem = Problem.strict().parse(body);
  expect({ status: actual, code: problem.code }).toEqual({ status, code });
  return problem;
}

/** What both ways of declaring give, for a guest that does not know of it. */
const DECLARATIONS: readonly [Declaration, Partial<EndpointBody>][] = [
  [{ name: "a" }, { origin: "host", ns: "down", address: 1024, peer: null, state: "declared" }],
  [
    { name: "b", ns: "down", address: 7 },
    { origin: "host", ns: "down", address: 7, state: "declared" },
  ],
  [
    { name: "c", ns: "both" },
    { origin: "host", ns: "both", address: 1025, state: "declared" },
  ],
  [
    { name: "d", ns: "both", address: 0xffff_fffe },
    { origin: "host", ns: "both", address: 0xffff_fffe },
  ],
  [
    { name: "e", ns: "up" },
    { origin: "guest", ns: "up", address: null, peer: null, state: "declared" },
  ],
  [
    { name: "f", ns: "up", address: 30, local: 2000 },
    { origin: "guest", ns: "up", address: 30, peer: null },
  ],
  [
    { name: "g", ns: "none", address: 31 },
    { origin: "host", ns: "none", address: 31, peer: null },
  ],
  [
    { name: "h", ns: "none", address: 0, peer: 40 },
    { origin: "host", ns: "none", address: 0, peer: 40, state: "connected" },
  ],
  [{ name: "gr\u00fc\u00df e/@~%" }, { origin: "host", ns: "down", address: 1026 }],
  [{ name: "x".repeat(31) }, { origin: "host", ns: "down", address: 1027 }],
];

describe.skipIf(unsupported !== undefined)(titled("POST endpoints"), () => {
  test("201 with the resource and where it is, for every ns", async () => {
    const { running } = await guestBridge([], {});
    for (const [declaration, expected] of DECLARATIONS) {
      const { status, location, body } = await ask(running, "POST", "vm/endpoints", declaration);
      expect(status).toBe(201);
      const endpoint = Endpoint.strict().parse(body);
      expect(endpoint).toMatchObject({
        ...{ name: declaration.name, guest: "vm", generation: 1, mtu: 496, clients: 0 },
        ...expected,
      });
      expect(location).toBe(`/api/v1/guests/vm/endpoints/${endpoint.id}`);
      expect(await (await fetch(running.url + location)).json()).toEqual(endpoint);
      expect(await running.endpoints()).toContainEqual(endpoint);
    }
    const endpoints = await running.endpoints();
    expect(endpoints).toHaveLength(DECLARATIONS.length);
    for (const { path } of endpoints) await (await running.connect(path)).close();
  });

  test("the configuration gives the same", async () => {
    const declarations = DECLARATIONS.map(([declaration]) => declaration);
    const configured = await guestBridge(declarations, {});
    const posted = await guestBridge([], {});
    for (const declaration of declarations) await declare(posted.running, declaration, "vm");
    expect(await configured.running.endpoints()).toEqual(await posted.running.endpoints());
  });

  test("and so does --announce", async () => {
    const flags = {
      guest: ["vm=vhost-user:/nowhere"],
      announce: ["vm/a", "vm/b@7", "vm/c@0x30", "vm/two words@9"],
    };
    const { guests } = await loadConfig(flags, {});
    const flagged = await guestBridge(guests["vm"]?.endpoints ?? [], {});
    const posted = await guestBridge([], {});
    for (const body of [
      { name: "a" },
      { name: "b", address: 7 },
      { name: "c", address: 48 },
      { name: "two words", address: 9 },
    ]) {
      await declare(posted.running, body, "vm");
    }
    expect(await flagged.running.endpoints()).toEqual(await posted.running.endpoints());
  });

  test("before the guest is there: it is told when it comes, and after every reset", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([], {
      services: { svc: { service: answering.factory, ns: "down" } },
    });
    const { id, path } = await declare(running, { name: "svc", address: HOST }, "vm");
    const { vm } = await attach();
    for (const generation of [1, 2, 3]) {
      await running.endpoint("svc", (each) => each.state === "connected" && each.generation === generation);
      expect(await running.endpoint("svc")).toMatchObject({ id, path });
      expect(guest.nameService).toEqual([`+svc@${HOST}`]);
      await vm.reboot();
    }
  });

  test("to a guest that runs: it is told at once, and answers", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge([], {
      services: { svc: { service: answering.factory, ns: "down" } },
    });
    await attach();
    await eventually("attached", async () =>
      (await running.guest("vm")).state === "attached" ? true : undefined,
    );
    const { path } = await declare(running, { name: "svc", address: HOST }, "vm");
    const client = await running.connect(path);
    client.send("hello");
    let text = await client.text();
    // The guest says something by itself, if the client was there in time.
    if (text === "") text = await client.text();
    expect(text).toBe("1024: hello");
    expect(guest.nameService).toEqual([`+svc@${HOST}`]);
  });
});

describe("what cannot be declared", () => {
  test.each<[what: string, body: object | string, key: string]>([
    ["no name", {}, "name"],
    ["an empty name", { name: "" }, "name"],
    ["a name of 32 bytes", { name: `${"x".repeat(30)}ß` }, "name"],
    ["a name with a zero", { name: "a\0b" }, "name"],
    ["a number for a name", { name: 1 }, "name"],
    ["an unknown ns", { name: "a", ns: "sideways" }, "ns"],
    ["a negative address", { name: "a", address: -1 }, "address"],
    ["the address ANY", { name: "a", address: 0xffff_ffff }, "address"],
    ["an address as text", { name: "a", address: "1040" }, "address"],
    ["an address that is no integer", { name: "a", address: 1.5 }, "address"],
    ["a key too many", { name: "a", addres: 7 }, "addres"],
    ["none without an address", { name: "a", ns: "none" }, "address"],
    ["down with a peer", { name: "a", peer: 7 }, "peer"],
    ["both with a peer", { name: "a", ns: "both", peer: 7 }, "peer"],
    ["up with a peer", { name: "a", ns: "up", peer: 7 }, "peer"],
    ["down with a local address", { name: "a", local: 2000 }, "local"],
    ["none with a local address", { name: "a", ns: "none", address: 7, local: 2000 }, "local"],
    ["the peer ANY", { name: "a", ns: "none", address: 7, peer: 0xffff_ffff }, "peer"],
    ["a list", [], "body"],
    ["null", "null", "body"],
    ["no JSON", "{", "JSON"],
  ])("%s: 400, and the answer names %3$s", async (_what, body, key) => {
    const running = await testBridge({ guests: { demo: { kind: "emulated" } } });
    await running.endpoint("tty");
    const before = (await running.endpoints()).length;
    const { detail } = await expectProblem(ask(running, "POST", "demo/endpoints", body), 400, "bad-request");
    expect(detail).toContain(key);
    expect(await running.endpoints()).toHaveLength(before);
  });

  test.each(["text/plain", "text/xml", "application/octet-stream"])("%s is no body: 415", async (type) => {
    const running = await testBridge();
    await expectProblem(
      ask(running, "POST", "demo/endpoints", '{"name":"a"}', type),
      415,
      "media-type-unknown",
    );
  });

  test("a body that is too large: 413", async () => {
    const running = await testBridge();
    await expectProblem(
      ask(running, "POST", "demo/endpoints", `{"name":"${"x".repeat(131_072)}"}`),
      413,
      "body-too-large",
    );
  });

  test("a guest that there is not: 404, whatever the body", async () => {
    const running = await testBridge();
    for (const guest of ["nobody", "__proto__", "demo2"]) {
      await expectProblem(ask(running, "POST", `${guest}/endpoints`, { name: "a" }), 404, "guest-unknown");
      await expectProblem(ask(running, "GET", `${guest}/endpoints/e1`), 404, "guest-unknown");
      await expectProblem(ask(running, "DELETE", `${guest}/endpoints/e1`), 404, "guest-unknown");
    }
  });

  test("an address that is taken: 409, by whomever", async () => {
    const running = await testBridge();
    const tty = await running.endpoint("tty");
    const { id } = await declare(running, { name: "a", address: HOST });
    await running.connect(`${tty.path}?local=2000`);
    for (const ns of ["none", "down", "both"]) {
      for (const address of [HOST, 2000, 53]) {
        await expectProblem(
          ask(running, "POST", "demo/endpoints", { name: "b", ns, address }),
          409,
          "address-in-use",
        );
      }
    }
    await expectProblem(
      ask(running, "POST", "demo/endpoints", { name: "a", address: HOST }),
      409,
      "address-in-use",
    );
    // Where the address is the guest's, the host may have the same.
    await declare(running, { name: "c", ns: "up", address: HOST });
    await ask(running, "DELETE", `demo/endpoints/${id}`);
    await declare(running, { name: "b", address: HOST });
  });

  test("name service's own address is nobody's", async () => {
    const running = await testBridge();
    for (const body of [
      { name: "a", ns: "none", address: HOST, peer: 53 },
      { name: "a", ns: "up", address: 53 },
    ]) {
      await expectProblem(ask(running, "POST", "demo/endpoints", body), 400, "bad-request");
    }
  });

  test("more than limits.declaredEndpoints: 409, until one is withdrawn", async () => {
    const running = await testBridge({
      guests: { demo: { kind: "emulated", endpoints: [{ name: "a" }] }, other: { kind: "emulated" } },
      limits: { declaredEndpoints: 3 },
    });
    const { id } = await declare(running, { name: "b", ns: "none", address: HOST });
    await declare(running, { name: "c", ns: "up" });
    for (const ns of ["down", "up", "both"]) {
      const full = ask(running, "POST", "demo/endpoints", { name: "d", ns });
      const { detail } = await expectProblem(full, 409, "too-many-endpoints");
      expect(detail).toContain("3");
    }
    expect(await running.refusal("/ws/v1/demo?announce=d")).toMatchObject({ code: "too-many-endpoints" });
    // Each guest has its own.
    await declare(running, { name: "d" }, "other");
    await ask(running, "DELETE", `demo/endpoints/${id}`);
    const client = await running.connect("/ws/v1/demo?announce=d");
    await expectProblem(ask(running, "POST", "demo/endpoints", { name: "e" }), 409, "too-many-endpoints");
    await client.close();
    await eventually("there is room", async () =>
      (await ask(running, "POST", "demo/endpoints", { name: "e" })).status === 201 ? true : undefined,
    );
  });

  test("a mistake in the configuration names the guest, and an address that is taken there too", async () => {
    const guests = (endpoints: Declaration[]) => ({
      guests: { vm: { kind: "emulated" as const, endpoints } },
    });
    expect(
      Config.safeParse(guests([{ name: "a" }, { name: "b", ns: "none" }])).error?.issues[0]?.path,
    ).toEqual(["guests", "vm", "endpoints", 1, "address"]);
    await expect(
      testBridge(
        guests([
          { name: "a", address: 7 },
          { name: "b", ns: "none", address: 7 },
        ]),
      ),
    ).rejects.toMatchObject({ key: "guests.vm.endpoints" });
  });
});

describe("one name, several addresses", () => {
  test("each has its path, which stays", async () => {
    const running = await testBridge({ guests: { demo: { kind: "emulated" } } });
    const paths: string[] = [];
    const ids: string[] = [];
    for (const body of [
      { name: "x", ns: "up" },
      { name: "x", ns: "none", address: 1040 },
      { name: "x", ns: "none", address: 1041, peer: 7 },
      { name: "x", ns: "up", address: 1041 },
      { name: "x", ns: "up" },
    ]) {
      const { id, path } = await declare(running, body);
      ids.push(id);
      paths.push(path);
    }
    const base = "/ws/v1/demo/";
    expect(paths).toEqual([
      ...[`${base}x`, `${base}x@1040`, `${base}x@1041`, `${base}~${ids[3]}`, `${base}~${ids[4]}`],
    ]);
    await ask(running, "DELETE", `demo/endpoints/${ids[0]}`);
    const left = (await running.endpoints()).filter((each) => each.name === "x");
    expect(left.map((each) => each.path)).toEqual(paths.slice(1));
  });
});

describe.skipIf(unsupported !== undefined)(titled("a path with an address"), () => {
  test("goes on meaning its endpoint when the guest announces an older one of that name there", async () => {
    const answering = new Answering();
    const { running, guest, attach } = await guestBridge(
      [
        { name: "svc", ns: "up" },
        { name: "svc", ns: "none", address: 3000, peer: 40 },
      ],
      { services: { other: { service: answering.factory, ns: "none", address: 40 } } },
    );
    await attach();
    const [, fixed] = await running.endpoints();
    expect(fixed?.path).toBe("/ws/v1/vm/svc@3000");
    guest.announce("svc", answering.factory, 3000);
    await running.endpoint("svc", (each) => each.origin === "guest" && each.address === 3000);
    const client = await running.connect("/ws/v1/vm/svc@3000");
    client.send("who is there?");
    expect(await client.text()).toBe("40: who is there?");
    const other = await running.connect("/ws/v1/vm/svc@3000?origin=guest");
    other.send("and there?");
    expect(await other.text()).toBe("3000: and there?");
  });
});

describe("DELETE", () => {
  test("204 without a body; its clients end with 4002, and it is gone", async () => {
    const running = await testBridge();
    for (const body of [
      { name: "x", ns: "up" },
      { name: "x", ns: "none", address: 1040 },
      { name: "x", ns: "down" },
      { name: "x", ns: "both" },
    ]) {
      const { id, path } = await declare(running, body);
      const clients = [await running.connect(path), await running.connect(`${path}?share=shared`)];
      const { status, text } = await ask(running, "DELETE", `demo/endpoints/${id}`);
      expect({ status, text }).toEqual({ status: 204, text: "" });
      for (const client of clients) {
        expect(await client.closed).toEqual({ code: 4002, reason: "endpoint withdrawn" });
      }
      expect(await running.refusal(path)).toMatchObject({ status: 404, code: "endpoint-unknown" });
      await expectProblem(ask(running, "GET", `demo/endpoints/${id}`), 404, "endpoint-unknown");
      await expectProblem(ask(running, "DELETE", `demo/endpoints/${id}`), 404, "endpoint-unknown");
    }
  });

  test("the address is free at once, and the id is never used again", async () => {
    const running = await testBridge();
    const seen = new Set<string>();
    for (let i = 0; i < 5; i++) {
      const { id } = await declare(running, { name: "x", ns: "both", address: HOST });
      seen.add(id);
      await ask(running, "DELETE", `demo/endpoints/${id}`);
    }
    expect(seen.size).toBe(5);
  });

  test("what the guest has announced is not the host's to withdraw: 409, and it stays", async () => {
    const running = await testBridge();
    const echo = await running.endpoint("echo");
    const client = await running.connect(echo.path);
    const problem = await expectProblem(
      ask(running, "DELETE", `demo/endpoints/${echo.id}`),
      409,
      "endpoint-of-guest",
    );
    expect(problem.detail).toContain("guest");
    client.send("still there");
    expect(await client.text()).toBe("still there");
  });

  test("an endpoint of another guest is none of this one", async () => {
    const running = await testBridge({ guests: { a: { kind: "emulated" }, b: { kind: "emulated" } } });
    const { id } = await declare(running, { name: "x", ns: "none", address: HOST }, "a");
    await expectProblem(ask(running, "DELETE", `b/endpoints/${id}`), 404, "endpoint-unknown");
    await expectProblem(ask(running, "GET", `b/endpoints/${id}`), 404, "endpoint-unknown");
    expect((await ask(running, "GET", `a/endpoints/${id}`)).status).toBe(200);
  });

  test.each(["rpmsg.v1.raw", "rpmsg.v1.json"])(
    "a service that a client of %s is: the client ends with 4002",
    async (protocol) => {
      const running = await testBridge();
      const client = await running.connect("/ws/v1/demo?announce=mine", [protocol]);
      const { id } = await running.endpoint("mine");
      expect((await ask(running, "DELETE", `demo/endpoints/${id}`)).status).toBe(204);
      expect((await client.closed).code).toBe(4002);
      expect((await running.endpoints()).map((each) => each.name)).not.toContain("mine");
    },
  );
});

describe("several subscriptions of one mux connection to an endpoint", () => {
  test("all stay down when the host withdraws it, and are up again when it is declared again", async () => {
    const running = await testBridge();
    const body = { name: "x", ns: "none", address: HOST };
    const { id, path } = await declare(running, body);
    const client = await MuxClient.open(running.url);
    for (const sub of [1, 2, 3]) await client.subscribed(sub, path);
    await ask(running, "DELETE", `demo/endpoints/${id}`);
    for (const sub of [1, 2, 3]) {
      expect(await client.take("state", sub)).toMatchObject({ state: "down", reason: "withdrawn" });
    }
    await client.settled();
    expect(client.frames).toEqual([]);
    const next = await declare(running, body);
    for (const sub of [1, 2, 3]) {
      expect(await client.take("state", sub)).toMatchObject({ state: "up" });
      expect(await client.take("subscribed", sub)).toMatchObject({ id: next.id });
    }
    expect((await running.endpoint("x")).clients).toBe(3);
  });

  test.skipIf(unsupported !== undefined)(titled("all stay down when the guest withdraws it"), async () => {
    const { running, guest, attach } = await guestBridge([], {
      services: { x: { service: new Answering().factory, ns: "up" } },
    });
    await attach();
    const { path } = await running.endpoint("x");
    const client = await MuxClient.open(running.url);
    for (const sub of [1, 2, 3]) await client.subscribed(sub, path);
    guest.withdraw("x");
    for (const sub of [1, 2, 3]) {
      expect(await client.take("state", sub)).toMatchObject({ state: "down", reason: "withdrawn" });
    }
    await client.settled();
    expect(client.frames).toEqual([]);
  });
});

describe.skipIf(unsupported !== undefined)(titled("DELETE, at the guest"), () => {
  test.each(["down", "both"] as const)(
    "an endpoint with ns %s: the guest hears it, in this generation and no other",
    async (ns) => {
      const { running, guest, attach } = await guestBridge([{ name: "svc", ns, address: HOST }], {
        services: {},
      });
      const { vm } = await attach();
      const { id } = await running.endpoint("svc", (each) => each.state === "announced");
      await ask(running, "DELETE", `vm/endpoints/${id}`);
      await eventually("it hears it", () => (guest.nameService.length === 2 ? true : undefined));
      expect(guest.nameService).toEqual([`+svc@${HOST}`, `-svc@${HOST}`]);
      await vm.reboot();
      await declare(running, { name: "next", address: HOST }, "vm");
      await running.endpoint("next", (each) => each.state === "announced");
      expect(guest.nameService).toEqual([`+next@${HOST}`]);
    },
  );

  test.each([
    ["none", { name: "svc", ns: "none", address: HOST }],
    ["up", { name: "svc", ns: "up" }],
  ])("an endpoint with ns %s: it hears nothing", async (_ns, body) => {
    const { running, guest, attach } = await guestBridge([], { services: {} });
    await attach();
    const { id } = await declare(running, body, "vm");
    await ask(running, "DELETE", `vm/endpoints/${id}`);
    await declare(running, { name: "next", address: 1050 }, "vm");
    await running.endpoint("next", (each) => each.state === "announced");
    expect(guest.nameService).toEqual(["+next@1050"]);
  });

  test("while the guest is away: it never hears of it", async () => {
    const { running, guest, attach } = await guestBridge(
      [
        { name: "svc", address: HOST },
        { name: "kept", address: 1041 },
      ],
      { services: {} },
    );
    const first = await attach();
    await running.endpoint("kept", (each) => each.state === "announced");
    first.vm.close();
    await running.endpoint("kept", (each) => each.state === "declared");
    const { id } = await running.endpoint("svc");
    expect((await ask(running, "DELETE", `vm/endpoints/${id}`)).status).toBe(204);
    await attach();
    await running.endpoint("kept", (each) => each.state === "announced");
    expect(guest.nameService).toEqual(["+kept@1041"]);
  });
});
