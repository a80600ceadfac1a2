import { once } from "node:events";
import { writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Endpoint, EndpointList, Guest, GuestList } from "../../schemas/index.ts";
import type { Finished, StartOptions } from "./cli-support.ts";
import { Command, strangeServer } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

let bridge: Command;
let url: string;

beforeAll(async () => {
  bridge = new Command([
    ...["serve", "--listen", "127.0.0.1:0"],
    ...["--guest", "demo=emulated", "--guest", "amp=emulated,profile=openamp"],
    ...["--announce", "demo/two words@1040", "--announce", "demo/bidi\u202etxt@1042"],
    ...["--announce", "demo/echo@1043", "--announce", "demo/~x"],
  ]);
  url = await bridge.url();
});

afterAll(async () => {
  expect((await bridge.kill("SIGTERM")).code).toBe(0);
});

const run = (args: string[], options?: StartOptions): Promise<Finished> =>
  Command.run(args, { environment: { RPMSG_BRIDGE_URL: url }, ...options });

/** Lines of a table: every cell but the first begins two spaces after the longest of its column. */
function expectTable(stdout: string): string[] {
  const lines = stdout.trimEnd().split("\n");
  const columns = [...(lines[0] ?? "").matchAll(/\S+( \S+)*/g)].map((each) => each.index);
  for (const line of lines) {
    for (const at of columns.slice(1)) expect(line.slice(at - 2, at + 1)).toMatch(/^ {2}\S$/);
  }
  // What would steer a terminal is not shown.
  expect(stdout).not.toContain("\u001b");
  expect(stdout).not.toContain("\u202e");
  return lines;
}

describe("ls", () => {
  test("shows a table with a line for each endpoint, without colours", async () => {
    const { code, stdout, stderr } = await run(["ls"]);
    expect([code, stderr]).toEqual([0, ""]);
    const lines = expectTable(stdout);
    expect(lines[0]).toMatch(/^GUEST +NAME +ADDRESS +ORIGIN +NS +STATE +CLIENTS +PATH$/);
    expect(lines).toHaveLength(15);
    const echo = /^amp +echo +\d+ +guest +up +connected +0 +\/ws\/v1\/amp\/echo$/;
    expect(lines.some((line) => echo.test(line))).toBe(true);
    expect(stdout).toContain("bidi\ufffdtxt");
  });

  test("--json prints what the bridge says, --guest only those of one guest", async () => {
    const { code, stdout } = await run(["ls", "--json", "--guest", "amp"]);
    expect(code).toBe(0);
    const { endpoints } = EndpointList.strict().parse(JSON.parse(stdout));
    expect(endpoints.map((each) => each.name)).toEqual(["echo", "tty", "sensor", "source", "sink"]);
    expect(new Set(endpoints.map((each) => each.guest))).toEqual(new Set(["amp"]));
  });

  test("a guest that there is not is exit code 1", async () => {
    const { code, stderr } = await run(["ls", "--guest", "nobody"]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("(guest-unknown): rpmsg-bridge guests")]);
  });

  test("a list of several pages is shown whole, each endpoint once", async () => {
    const config = join(testDirectory(), "many.yaml");
    const endpoints = Array.from({ length: 2500 }, (_, i) => ({ name: `s${i}`, address: 2000 + i }));
    const guests = { many: { kind: "emulated", endpoints } };
    writeFileSync(config, JSON.stringify({ guests, limits: { declaredEndpoints: 3000 } }));
    const many = Command.start(["serve", "--listen", "127.0.0.1:0", "--config", config]);
    const { stdout } = await run(["ls", "--json", "--url", await many.url()]);
    const names = EndpointList.parse(JSON.parse(stdout)).endpoints.map((each) => each.name);
    expect(names.toSorted()).toEqual(
      [...endpoints.map((each) => each.name), "echo", "tty", "sensor", "source", "sink"].toSorted(),
    );
  });
});

describe("guests", () => {
  test("shows a table with a line for each guest", async () => {
    const { code, stdout, stderr } = await run(["guests"]);
    expect([code, stderr]).toEqual([0, ""]);
    const lines = expectTable(stdout);
    expect(lines[0]).toMatch(/^NAME +KIND +STATE +GENERATION +MTU +TO GUEST +FROM GUEST$/);
    expect(lines[1]).toMatch(/^demo +emulated +attached +1 +496 +\d+ +\d+$/);
    expect(lines[2]).toMatch(/^amp +emulated +attached +1 +496 +\d+ +\d+$/);
    expect(lines).toHaveLength(3);
  });

  test("--json prints what the bridge says", async () => {
    const { stdout } = await run(["guests", "--json"]);
    const { guests } = GuestList.strict().parse(JSON.parse(stdout));
    expect(guests.map((each) => each.name)).toEqual(["demo", "amp"]);
  });
});

describe("info", () => {
  test("shows all about an endpoint and its guest, in aligned lines", async () => {
    const { code, stdout, stderr } = await run(["info", "amp/echo"]);
    expect([code, stderr]).toEqual([0, ""]);
    const [endpoint = "", guest = ""] = stdout.split("\n\n");
    expect(endpoint).toMatch(/^endpoint amp\/echo\n {2}id +e\d+\n/);
    expect(endpoint).toMatch(/\n {2}address +1024 \(0x400\)\n/);
    expect(guest).toMatch(/^guest amp\n {2}kind +emulated\n/);
    for (const block of [endpoint, guest]) {
      const lines = block.trimEnd().split("\n").slice(1);
      const columns = lines.map((line) => /^ {2}\S+ +/.exec(line)?.[0].length);
      expect(new Set(columns).size).toBe(1);
    }
    // Nothing of what REST has is missing.
    const keys = (value: object): string[] =>
      Object.entries(value).flatMap(([key, each]: [string, unknown]) =>
        key === "counters" ? Object.keys(each as object) : [key],
      );
    const shown = (block: string) => [...block.matchAll(/^ {2}(\S+)/gm)].map(([, key = ""]) => key);
    const json = JSON.parse((await run(["info", "amp/echo", "--json"])).stdout) as Record<string, object>;
    expect(["guest", ...shown(endpoint)].toSorted()).toEqual(keys(json["endpoint"] ?? {}).toSorted());
    expect(["name", ...shown(guest)].toSorted()).toEqual(keys(json["guest"] ?? {}).toSorted());
  });

  test("--json prints the endpoint and the guest as the bridge describes them", async () => {
    const { stdout } = await run(["info", "demo/echo", "--json"]);
    const { endpoint, guest, ...more } = JSON.parse(stdout) as Record<string, unknown>;
    expect(Endpoint.strict().parse(endpoint)).toMatchObject({ guest: "demo", path: "/ws/v1/demo/echo" });
    expect(Guest.strict().parse(guest)).toMatchObject({ name: "demo", state: "attached" });
    expect(more).toEqual({});
  });

  test.each([
    [["demo/echo"], { name: "echo", origin: "host", address: 1043 }],
    [["demo/echo", "--origin", "guest"], { name: "echo", origin: "guest", address: 1024 }],
    [["demo/echo@1024"], { name: "echo", origin: "guest", address: 1024 }],
    [["demo/echo@0x413"], { name: "echo", origin: "host", address: 1043 }],
    [["demo/two words"], { name: "two words" }],
    [["demo/~e1"], { id: "e1" }],
    [["demo/~e4"], { name: "~x" }],
  ])("%j finds the endpoint that connect would", async (args, expected) => {
    const { stdout } = await run(["info", ...args, "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({ endpoint: expected });
  });

  test("of a name that steers terminals, it shows the id to write instead", async () => {
    const { stdout } = await run(["info", "demo/~e2"]);
    expect(stdout).toMatch(/^endpoint demo\/~e2\n {2}id +e2\n {2}name +bidi\ufffdtxt\n/);
    expect(stdout).not.toContain("\u202e");
  });

  test("shows a guest alone", async () => {
    expect((await run(["info", "amp"])).stdout).toMatch(/^guest amp\n/);
    const { stdout } = await run(["info", "amp", "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({ guest: { name: "amp" } });
    expect(JSON.parse(stdout)).not.toHaveProperty("endpoint");
  });

  test.each([
    ["demo/nothing", 'guest "demo" has no endpoint "nothing" (endpoint-unknown): rpmsg-bridge ls'],
    ["demo/echo@7", 'guest "demo" has no endpoint "echo@7" (endpoint-unknown)'],
    ["demo/~e99", 'guest "demo" has no endpoint "~e99" (endpoint-unknown)'],
    ["nobody/echo", 'there is no guest "nobody" (guest-unknown): rpmsg-bridge guests'],
    ["nobody", 'there is no guest "nobody" (guest-unknown)'],
  ])("%s is exit code 1, and what is unknown is named", async (what, words) => {
    const { code, stdout, stderr } = await run(["info", what]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(`rpmsg-bridge: ${words}`);
  });
});

describe("what answers at the URL", () => {
  test("nobody: exit code 1 and what to do; --url goes before the environment", async () => {
    const free = createServer().listen(0, "127.0.0.1");
    await once(free, "listening");
    const nobody = `http://127.0.0.1:${(free.address() as AddressInfo).port}`;
    await new Promise((resolve) => free.close(resolve));
    const words = `rpmsg-bridge: cannot reach the bridge at ${nobody}: ECONNREFUSED. Start one with rpmsg-bridge serve, or say where it is with --url.\n`;
    for (const args of [["ls"], ["watch"], ["connect", "demo/echo"]]) {
      const { code, stderr } = await run([...args, "--url", nobody]);
      expect([code, stderr]).toEqual([1, words]);
    }
    const reached = await run(["ls", "--url", url], { environment: { RPMSG_BRIDGE_URL: nobody } });
    expect(reached.code).toBe(0);
  });

  const page = { status: 200, type: "text/html", body: "<p>welcome</p>" };
  const older = { status: 200, type: "application/json", body: '{"endpoints":[{"id":"e1"}],"guests":[{}]}' };
  const missing = { status: 404, type: "text/plain", body: "no such page" };
  test.each([
    [["ls"], "a page", page, "/api/v1/endpoints?: "],
    [["guests"], "a page", page, "/api/v1/guests: "],
    [["ls"], "another version", older, "endpoints: 0: "],
    [["guests"], "another version", older, "guests: 0: "],
    [["watch"], "a page", page, "/api/v1/events has no events"],
    [["watch"], "nothing there", missing, "status 404"],
    [["info", "demo/echo"], "nothing there", missing, "status 404"],
    [["connect", "demo/echo"], "nothing there", missing, "status 404"],
  ])("%j: %s", async (args, _what, { status, type, body }, words) => {
    const strange = await strangeServer((_request, response) => {
      response.writeHead(status, { "content-type": type }).end(body);
    });
    const { code, stdout, stderr } = await run([...args, "--url", strange]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(
      `rpmsg-bridge: what answers at ${strange} is no rpmsg-bridge, or one of another version than this command line (`,
    );
    expect(stderr).toContain(words);
    expect(stderr.trimEnd()).not.toContain("\n");
  });

  test("a bridge with errors that we do not know: its own words", async () => {
    const problem = { type: "about:blank", title: "No", status: 403, code: "not-today", detail: "come back" };
    const strange = await strangeServer((_request, response) => {
      response.writeHead(403, { "content-type": "application/problem+json" }).end(JSON.stringify(problem));
    });
    const { code, stderr } = await run(["ls", "--url", strange]);
    expect([code, stderr]).toEqual([1, "rpmsg-bridge: come back (not-today)\n"]);
  });

  test("a bridge that asks for a token gets the one that there is, and help does not show it", async () => {
    const strange = await strangeServer(({ headers }, response) => {
      response.statusCode = headers.authorization === "Bearer geheim" ? 200 : 401;
      response.end(JSON.stringify({ guests: [] }));
    });
    const environment = { RPMSG_BRIDGE_URL: strange, RPMSG_BRIDGE_TOKEN: "geheim" };
    expect(await run(["guests"], { environment })).toMatchObject({ code: 0 });
    expect((await run(["guests", "--help"], { environment })).stdout).not.toContain("geheim");
  });
});
