import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { Config } from "../../schemas/index.ts";
import { eventually, reached, testBridge } from "./support.ts";
import { allRights, testToken } from "./tokens.ts";

test("when a token ends, its connections are closed and its events end; those of others stay", async () => {
  const expires = Date.now() + 3000;
  const all = ["*/*"];
  const short = testToken("short", { read: all, write: all, announce: all }, expires);
  const long = allRights();
  const running = await testBridge({ tokens: [short.config, long.config] }, undefined, long.headers);
  await running.endpoint("echo");
  const as = (path: string, protocol: string, headers = short.headers) =>
    running.connect(path, [protocol], headers);
  const mine = await Promise.all([
    as("/ws/v1/demo/echo", "rpmsg.v1.raw"),
    as("/ws/v1/demo/echo", "rpmsg.v1.json"),
    as("/ws/v1", "rpmsg.v1.mux"),
    as("/ws/v1/demo?announce=service", "rpmsg.v1.raw"),
  ]);
  const other = await as("/ws/v1/demo/echo", "rpmsg.v1.raw", long.headers);
  const events = fetch(`${running.url}/api/v1/events`, { headers: short.headers }).then((each) =>
    each.text(),
  );
  for (const client of mine) expect(await client.closed).toEqual({ code: 1008, reason: "unauthorized" });
  expect(Date.now()).toBeGreaterThanOrEqual(expires);
  expect(await events).toContain("event: ready");
  // Nothing is kept for a session that cannot be resumed, and the service is withdrawn.
  await running.endpoint("echo", ({ clients }) => clients === 1);
  await eventually("it is withdrawn", async () =>
    (await running.endpoints()).some(({ name }) => name === "service") ? undefined : true,
  );
  other.send("still there");
  expect(await other.text()).toBe("still there");
});

test("a session is resumed with its own token, or a ticket of it, and with no other", async () => {
  const [one, two] = [allRights("one"), allRights("two")];
  const running = await testBridge({ tokens: [one.config, two.config] }, undefined, one.headers);
  const { path } = await running.endpoint("echo");
  const hello = async (query: string, headers: Record<string, string>) => {
    const client = await running.connect(path + query, ["rpmsg.v1.json"], headers);
    const frame = JSON.parse(await client.text()) as { session: string; resumed: boolean };
    client.socket.terminate();
    return frame;
  };
  const { session } = await hello("", one.headers);
  const resume = `?resume=${session}&after=0`;
  expect((await hello(resume, two.headers)).resumed).toBe(false);
  const issued = await fetch(`${running.url}/api/v1/tickets`, { method: "POST", headers: one.headers });
  const { ticket } = (await issued.json()) as { ticket: string };
  expect(await hello(resume, { authorization: `Bearer ${ticket}` })).toMatchObject({
    session,
    resumed: true,
  });
});

test("a token gets so many tickets at once, and a ticket nothing", async () => {
  const token = allRights();
  const { url, bridge } = await testBridge({
    tokens: [token.config],
    limits: { connectionsPerToken: 1 },
  });
  const ask = async (what: string, headers: Record<string, string>) => {
    const response = await fetch(`${url}/api/v1/${what}`, { method: "POST", headers });
    const body = (await response.json()) as { ticket: string; code: string };
    return { status: response.status, ...body, wait: response.headers.get("retry-after") };
  };
  const { ticket } = await ask("tickets", token.headers);
  const refused = await ask("tickets", token.headers);
  expect(refused).toMatchObject({
    status: 429,
    code: "rate-limited",
    wait: expect.stringMatching(/^([12]?\d|30)$/),
  });
  expect(reached({ bridge }, "connectionsPerToken")).toBe(1);
  const asTicket = { authorization: `Bearer ${ticket}` };
  expect(await ask("sessions", asTicket)).toMatchObject({ status: 403, code: "forbidden" });
  // It was used up by that.
  expect(await ask("sessions", asTicket)).toMatchObject({ status: 401 });
  expect(await ask("tickets", token.headers)).toMatchObject({ status: 201 });
});

describe("pages of another origin that is configured", () => {
  const origin = "https://panel.example";

  test("may ask with a token, and read the answers, events and errors among them", async () => {
    const token = allRights();
    const { url } = await testBridge({ tokens: [token.config], origins: [origin] });
    const preflight = await fetch(`${url}/api/v1/events`, {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization,last-event-id",
      },
    });
    expect([preflight.status, Object.fromEntries(preflight.headers)]).toEqual([
      204,
      expect.objectContaining({
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, HEAD, POST, DELETE",
        "access-control-allow-headers": "authorization, content-type, last-event-id",
        vary: "origin",
      }),
    ]);
    for (const [path, headers, status] of [
      ["/api/v1/guests", token.headers, 200],
      ["/api/v1/guests", {}, 401],
      ["/nothing", token.headers, 404],
    ] as const) {
      const response = await fetch(url + path, { headers: { ...headers, origin } });
      expect([response.status, response.headers.get("access-control-allow-origin")]).toEqual([
        status,
        origin,
      ]);
      expect(response.headers.get("access-control-allow-credentials")).toBeNull();
    }
    const controller = new AbortController();
    const events = await fetch(`${url}/api/v1/events`, {
      headers: { ...token.headers, origin },
      signal: controller.signal,
    });
    expect(events.headers.get("access-control-allow-origin")).toBe(origin);
    controller.abort();
  });

  test.each(["https://evil.example", "null", "https://panel.example:1"])(
    "%s is none of them",
    async (foreign) => {
      const { url } = await testBridge({ origins: [origin] });
      const headers = { origin: foreign, "access-control-request-method": "GET" };
      const response = await fetch(`${url}/api/v1/guests`, { method: "OPTIONS", headers });
      expect([response.status, response.headers.get("access-control-allow-origin")]).toEqual([403, null]);
    },
  );
});

test("a client that shows a credential alone is told which subprotocols there are, and nothing of the credential", async () => {
  const token = allRights();
  const running = await testBridge({ tokens: [token.config] });
  for (const protocols of [[`rpmsg.bearer.${token.token}`], [`rpmsg.bearer.${token.token}`, "other"]]) {
    const problem = await running.refusal("/ws/v1/demo/echo", { protocols });
    expect(problem).toMatchObject({ status: 400, code: "bad-request" });
    expect(problem.detail).toContain("rpmsg.v1.raw");
    expect(problem.detail).not.toContain(token.token);
  }
});

test("before an upgrade nothing but the head is looked at: 401 for any path", async () => {
  const running = await testBridge({ tokens: [allRights().config] });
  for (const path of [
    "/ws/v1",
    "/ws/v1/demo/echo",
    "/ws/v1/nobody/x",
    "/ws/v1/demo?announce=x",
    "/nothing",
  ]) {
    expect(await running.refusal(path)).toMatchObject({ status: 401, code: "unauthorized" });
  }
  const socket = new WebSocket(`${running.url.replace("http", "ws")}/ws/v1`);
  const challenge = await new Promise((resolve) => {
    socket.on("error", () => {});
    socket.on("unexpected-response", (_request, { headers }) => resolve(headers["www-authenticate"]));
  });
  socket.terminate();
  expect(challenge).toBe('Bearer realm="rpmsg-bridge"');
});

test.each([
  ["tokens.0.hash", { hash: "password" }],
  ["tokens.0.hash", { hash: `sha256:${"0".repeat(63)}` }],
  ["tokens.0.name", { name: "a b" }],
  ["tokens.0.expires", { expires: "tomorrow" }],
  ["tokens.0.rights.read.0", { rights: { read: ["echo"] } }],
  ["tokens.0.rights", { rights: { all: ["*/*"] } }],
])("a mistake at %s is found", (key, change) => {
  const { config } = allRights();
  const { error } = Config.safeParse({ tokens: [{ ...config, ...change }] });
  expect(error?.issues[0]?.path.join(".")).toBe(key);
});

test("two tokens of one name, or of one hash, are a mistake", () => {
  const [one, two] = [allRights("one").config, allRights("two").config];
  const same = (tokens: object[]) => Config.safeParse({ tokens }).error?.issues[0]?.path.join(".");
  expect(same([one, two])).toBeUndefined();
  expect(same([one, { ...two, name: "one" }])).toBe("tokens.1.name");
  expect(same([one, { ...two, hash: one.hash }])).toBe("tokens.1.hash");
});
