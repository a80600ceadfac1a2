import { request as httpRequest } from "node:http";
import supertest from "supertest";
import { describe, expect, test } from "vitest";
import type { Problem as ProblemBody } from "../../schemas/index.ts";
import { Endpoint, EndpointList, Guest, GuestList, Problem } from "../../schemas/resources.ts";
import { testBridge } from "./support.ts";

const TWO = {
  guests: {
    a: { kind: "emulated" as const, endpoints: [{ name: "raw", address: 1040 }] },
    b: { kind: "emulated" as const, profile: "openamp" as const },
  },
};

const SERVICES = ["echo", "sensor", "sink", "source", "tty"];

/** Two guests with all their endpoints there. */
async function twoGuests() {
  const running = await testBridge(TWO);
  await running.endpoint("raw", (each) => each.state === "connected");
  await running.endpoint("sink", (each) => each.guest === "a");
  await running.endpoint("sink", (each) => each.guest === "b");
  const api = supertest(running.url);
  const names = async (query: string): Promise<string[]> => {
    const { body } = await api.get(`/api/v1/endpoints${query}`).expect(200);
    return EndpointList.parse(body)
      .endpoints.map((each) => `${each.guest}/${each.name}`)
      .toSorted();
  };
  return { ...running, api, names };
}

/** Checks that an answer is a problem of that code, and gives it. */
function expectProblem(response: supertest.Response, status: number, code: string): ProblemBody {
  expect(response.headers["content-type"]).toMatch(/^application\/problem\+json/);
  expect(response.status).toBe(status);
  const problem = Problem.strict().parse(response.body);
  expect(problem).toMatchObject({ status, code });
  return problem;
}

describe("resources", () => {
  test("guests have the shape of the schema, and nothing beside it", async () => {
    const { api } = await twoGuests();
    const { body } = await api
      .get("/api/v1/guests")
      .expect(200)
      .expect("content-type", /^application\/json/);
    const { guests } = GuestList.strict().extend({ guests: Guest.strict().array() }).parse(body);
    expect(
      guests.map(({ name, kind, state, generation, mtu }) => [name, kind, state, generation, mtu]),
    ).toEqual([
      ["a", "emulated", "attached", 1, 496],
      ["b", "emulated", "attached", 1, 496],
    ]);
    expect(guests.map((each) => each.queues)).toEqual([
      { response: 256, request: 256 },
      { response: 16, request: 16 },
    ]);
    // Nothing waits but the guests' buffers.
    expect(guests.map((each) => each.waiting)).toEqual(
      guests.map(({ queues }) => ({ response: queues?.response, request: 0 })),
    );
    expect(guests[0]?.features).toContain("RPMSG_F_NS");
    const { body: one } = await api.get("/api/v1/guests/b").expect(200);
    expect(Guest.strict().parse(one)).toMatchObject({ name: "b", queues: { response: 16, request: 16 } });
  });

  test("endpoints have the shape of the schema, and nothing beside it", async () => {
    const { api } = await twoGuests();
    const { body } = await api.get("/api/v1/guests/a/endpoints").expect(200);
    const { endpoints } = EndpointList.strict().extend({ endpoints: Endpoint.strict().array() }).parse(body);
    expect(endpoints.map((each) => each.name).toSorted()).toEqual(["raw", ...SERVICES].toSorted());
    expect(new Set(endpoints.map((each) => each.id)).size).toBe(6);
    for (const each of endpoints) {
      expect(each).toMatchObject({ guest: "a", state: "connected", generation: 1, mtu: 496, clients: 0 });
      expect(each.path).toBe(`/ws/v1/a/${each.name}`);
      expect(each.origin).toBe(each.name === "raw" ? "host" : "guest");
    }
  });

  test("counters of guest and endpoint follow what is sent", async () => {
    const { api, connect } = await twoGuests();
    const before = Guest.parse((await api.get("/api/v1/guests/b")).body).counters;
    const client = await connect("/ws/v1/b/echo");
    client.send("12345");
    await client.next();
    const after = Guest.parse((await api.get("/api/v1/guests/b")).body).counters;
    expect(after.messagesToGuest - before.messagesToGuest).toBe(1);
    expect(after.bytesToGuest - before.bytesToGuest).toBe(5);
    expect(after.bytesFromGuest - before.bytesFromGuest).toBe(5);
  });

  test.each([
    ["", ["a/raw", ...SERVICES.flatMap((each) => [`a/${each}`, `b/${each}`])]],
    ["?guest=b", SERVICES.map((each) => `b/${each}`)],
    ["?name=echo", ["a/echo", "b/echo"]],
    ["?guest=a&name=echo", ["a/echo"]],
    ["?origin=host", ["a/raw"]],
    ["?origin=guest&guest=a", SERVICES.map((each) => `a/${each}`)],
    ["?origin=host&guest=b", []],
    ["?guest=nobody", []],
    ["?name=Echo", []],
    ["?name=", []],
    ["?guest=__proto__", []],
  ])("the list of endpoints filters: %s", async (query, expected) => {
    const { names } = await twoGuests();
    expect(await names(query)).toEqual(expected.toSorted());
  });

  test.each(["?origin=both", "?origin=", "?what=echo", "?guest=a&guest=b", "?name=a&name=a", "?NAME=echo"])(
    "a query that is not understood is 400: %s",
    async (query) => {
      const { api } = await twoGuests();
      const key = /[a-zA-Z]+/.exec(query)?.[0] ?? "";
      expect(expectProblem(await api.get(`/api/v1/endpoints${query}`), 400, "bad-request").detail).toContain(
        key,
      );
    },
  );
});

describe("what there is not", () => {
  test.each([
    ["GET", "/api/v1/guests/nobody", 404, "guest-unknown"],
    ["GET", "/api/v1/guests/nobody/endpoints", 404, "guest-unknown"],
    ["GET", "/api/v1/guests/__proto__", 404, "guest-unknown"],
    ["GET", "/api/v1/guests/a%2F..", 404, "guest-unknown"],
    ["GET", "/api/v1", 404, "not-found"],
    ["GET", "/api/v1/nothing", 404, "not-found"],
    ["GET", "/api/v2/guests", 404, "not-found"],
    ["POST", "/api/v1/guests", 404, "not-found"],
    ["DELETE", "/api/v1/guests/a", 404, "not-found"],
    ["PUT", "/healthz", 404, "not-found"],
    ["OPTIONS", "/api/v1/endpoints", 404, "not-found"],
    ["GET", "/ws/v1/a/echo", 426, "upgrade-required"],
    ["GET", "/ws/v1/nobody/nothing", 426, "upgrade-required"],
    ["POST", "/ws/v1/a/echo", 426, "upgrade-required"],
    // Neither the router nor its hooks see these: they are not UTF-8.
    ["GET", "/ws/v1/a/%ff", 426, "upgrade-required"],
    ["GET", "/api/v1/guests/%ff", 400, "bad-request"],
    ["GET", "/%", 400, "bad-request"],
  ])("%s %s is %i %s", async (method, path, status, code) => {
    const { url } = await testBridge(TWO);
    const response = await supertest(url)[method.toLowerCase() as "get"](path);
    expectProblem(response, status, code);
    if (status === 426) expect(response.headers["upgrade"]).toBe("websocket");
  });

  test.each([
    ["not JSON", "{", "application/json", 400, "bad-request"],
    ["too large", "x".repeat(131_073), "application/json", 413, "body-too-large"],
  ])("a body that is %s is a problem of the client", async (_what, body, type, status, code) => {
    const { url } = await testBridge();
    expectProblem(await supertest(url).post("/api/v1/guests").type(type).send(body), status, code);
  });
});

describe("health", () => {
  test("healthz and readyz answer while the bridge serves, HEAD too", async () => {
    const { url } = await testBridge();
    await supertest(url).get("/healthz").expect(200, { status: "ok" });
    await supertest(url).get("/readyz").expect(200, { status: "ready" });
    await supertest(url).head("/readyz").expect(200);
  });

  test("while it drains, it is alive but not ready", async () => {
    const { url, bridge, connect } = await testBridge();
    const client = await connect("/ws/v1/demo/echo");
    // Without an answer to its close the drain goes on.
    client.socket.pause();
    const drained = bridge.drain();
    await supertest(url).get("/readyz").expect(503, { status: "draining" });
    await supertest(url).get("/healthz").expect(200);
    await supertest(url).get("/api/v1/guests").expect(200);
    client.socket.resume();
    await drained;
    await supertest(url).get("/readyz").expect(503);
    await supertest(url).get("/healthz").expect(200);
  });
});

test("a request with an upgrade that is not a WebSocket's is refused as a problem", async () => {
  const { url } = await testBridge();
  const status = await new Promise((resolve, reject) => {
    const asked = httpRequest(`${url}/api/v1/nothing`, {
      headers: { connection: "Upgrade", upgrade: "something" },
    });
    asked.on("error", reject);
    asked.on("response", (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.end();
  });
  expect(status).toBe(404);
});

describe("a request that offers another protocol", () => {
  test.each([
    ["/healthz", 200],
    ["/api/v1/nothing", 404],
    ["/api/v1/guests", 200],
  ])("is answered as if it did not: %s", async (path, status) => {
    const { url } = await testBridge();
    const answered = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { connection: "Upgrade, HTTP2-Settings", upgrade: "h2c", "http2-settings": "AAMAAABk" };
      httpRequest(url + path, { headers }, (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode));
      })
        .on("error", reject)
        .end();
    });
    expect(answered).toBe(status);
  });
});
