import fc from "fast-check";
import { pino } from "pino";
import { expect, onTestFinished, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import { EndpointList } from "../../schemas/index.ts";
import { referenceOf } from "../../server/cli/reference.ts";
import { startBridge } from "../../server/index.ts";
import { Command } from "./cli-support.ts";
import { readExposition } from "./exposition.ts";
import { anyName, guestOf, hostileNames, UNSEEN } from "./hostile-names.ts";
import { Client, eventually } from "./support.ts";

/** A bridge whose guest `board` has announced these names. */
async function bridgeOf(names: readonly string[]) {
  const lines: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => lines.push(line) });
  const guests = { board: guestOf(names) };
  const bridge = await startBridge(
    { listen: "127.0.0.1:0", limits: { drainTimeout: 1000 } },
    { guests, log },
  );
  const { url } = bridge;
  const list = async (query = "") => {
    const response = await fetch(`${url}/api/v1/endpoints?limit=10000${query}`);
    return EndpointList.parse(await response.json()).endpoints;
  };
  const endpoints = await eventually("all are listed", async () => {
    const all = await list();
    return all.length === names.length ? all : undefined;
  });
  const open = (path: string, protocol?: string) =>
    Client.open(url.replace("http", "ws") + path, protocol === undefined ? [] : [protocol]);
  return { bridge, url, lines, list, endpoints, open };
}

type Setup = Awaited<ReturnType<typeof bridgeOf>>;

/** The address that its place in the list of names has given it. */
function byAddress(endpoints: readonly Endpoint[], i: number): Endpoint {
  const found = endpoints.find(({ address }) => address === 2000 + i);
  if (found === undefined) throw new Error(`nothing at address ${2000 + i}`);
  return found;
}

/** Every byte as it must be in a path, whatever the bridge does: another notation of the same. */
function allPercent(name: string): string {
  return [...Buffer.from(name, "latin1")].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
}

/** That a name is listed, found, connected to in all ways, and reaches its own endpoint and no other. */
async function expectReachable(setup: Setup, names: readonly string[], i: number): Promise<void> {
  const { endpoints, open, list, url } = setup;
  const name = names[i] as string;
  const { id, path, name: shown, address } = byAddress(endpoints, i);
  expect(shown).toBe(Buffer.from(name, "latin1").toString());
  expect(path).toMatch(/^\/ws\/v1\/board\/[\w.~%@-]+$/);
  expect(endpoints.filter((each) => each.path === path).length).toBe(1);
  // As its own path, by id, and by the bytes of its name with its address.
  const ways = [path, `/ws/v1/board/~${id}`, `/ws/v1/board/${allPercent(name)}@${address}`];
  for (const way of ways) {
    const client = await open(way, "rpmsg.v1.json");
    const hello = JSON.parse(await client.text()) as { id: string; endpoint: string };
    expect([way, hello.id, hello.endpoint]).toEqual([way, id, shown]);
    await client.close();
  }
  const raw = await open(path);
  raw.send(`to ${i}`);
  expect(await raw.text()).toBe(`to ${i}`);
  await raw.close();
  const mux = await open("/ws/v1", "rpmsg.v1.mux");
  await mux.text();
  mux.socket.send(JSON.stringify({ type: "subscribe", sub: 1, path }));
  expect(JSON.parse(await mux.text())).toMatchObject({ type: "subscribed", id, endpoint: shown });
  await mux.close();
  const reply = await fetch(`${url}/api/v1/guests/board/endpoints/${id}/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ data: "rest", wait: 15_000 }),
  });
  expect([reply.status, await reply.json()]).toMatchObject([200, { src: address, data: "rest" }]);
  // All that look the same to people, and only those.
  const found = await list(`&name=${encodeURIComponent(shown)}`);
  const same = endpoints.filter((each) => each.name === shown);
  expect(found.map((each) => each.id)).toEqual(same.map((each) => each.id));
}

/** That metrics have each endpoint once, under the labels that it must have, and nothing else. */
async function expectMeasured({ url, endpoints }: Setup): Promise<void> {
  const metrics = readExposition(await (await fetch(`${url}/metrics`)).text());
  const wanted = endpoints.map(({ name, path, origin }) => ({
    guest: "board",
    endpoint: name,
    origin,
    path,
  }));
  const byPath = (a: { path?: string }, b: { path?: string }) => ((a.path ?? "") < (b.path ?? "") ? -1 : 1);
  for (const [name, { series }] of metrics) {
    if (!name.startsWith("rpmsg_endpoint_")) {
      // Names are in no other metric.
      expect(series.flatMap(({ labels }) => Object.keys(labels))).not.toContain("endpoint");
      continue;
    }
    const labels = series.map((each) => ({ ...each.labels }));
    expect(labels.toSorted(byPath)).toEqual(wanted.toSorted(byPath));
  }
}

/** That every line of the log is one object of JSON, and shows what it shows. */
function expectLogged({ lines }: Setup): void {
  expect(lines.length).toBeGreaterThan(0);
  for (const line of lines) {
    expect(line.endsWith("\n")).toBe(true);
    expect(line.slice(0, -1)).not.toMatch(UNSEEN);
    const { event } = JSON.parse(line) as { event: string };
    expect(event).toMatch(/^[a-z-]+$/);
  }
}

test("names of any bytes are listed, reached by bytes and by id, measured and logged, each for itself", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(anyName, { minLength: 1, maxLength: 5 }), async (names) => {
      const setup = await bridgeOf(names);
      try {
        for (const i of names.keys()) await expectReachable(setup, names, i);
        await expectMeasured(setup);
        expectLogged(setup);
      } finally {
        await setup.bridge.close();
      }
    }),
    { numRuns: 6, endOnFailure: true, interruptAfterTimeLimit: 12_000 },
  );
});

test("one name at several addresses is several endpoints", async () => {
  const names = ["\u00ff", "\u00ff", "\u00fe", "\u00ff"];
  const setup = await bridgeOf(names);
  onTestFinished(() => setup.bridge.close());
  for (const i of names.keys()) await expectReachable(setup, names, i);
  await expectMeasured(setup);
  const holders = setup.endpoints.map(({ path }) => path.slice("/ws/v1/board/".length));
  expect(holders).toEqual(["%FF", "%FF@2001", "%FE", "%FF@2003"]);
});

test("on the command line all hostile names are shown without what steers a terminal, and are reached", async () => {
  const setup = await bridgeOf(hostileNames);
  onTestFinished(() => setup.bridge.close());
  const { url } = setup;
  const flags = ["--url", url];
  const last = byAddress(setup.endpoints, hostileNames.indexOf("\u00ff"));
  const watch = Command.start(["watch", ...flags]);
  const [ls, info, talk] = await Promise.all([
    Command.run(["ls", ...flags]),
    Command.run(["info", `board/~${last.id}`, ...flags]),
    Command.run(["connect", `board/~${last.id}`, ...flags], { input: "hello\n" }),
  ]);
  // What completion offers leads to its endpoint: each is another one.
  const offered = setup.endpoints.map(referenceOf);
  const watched: string[] = [];
  do watched.push(await watch.line());
  while (!watched.at(-1)?.includes("ready"));
  const shown = { ls: ls.stdout, complete: offered.join("\n"), info: info.stdout, watch: watched.join("\n") };
  for (const [command, text] of Object.entries(shown)) {
    // One line each: no name ends one.
    for (const line of text.split("\n"))
      expect([command, line]).not.toEqual([command, expect.stringMatching(UNSEEN)]);
  }
  expect(ls.stdout.trimEnd().split("\n").length).toBe(1 + hostileNames.length);
  expect(info.stdout).toMatch(/^ {2}path +\/ws\/v1\/board\/%FF$/m);
  expect([talk.stdout, talk.code]).toEqual(["hello\n", 0]);
  expect(new Set(offered).size).toBe(hostileNames.length);
  for (const reference of ["board/__proto__", "board/$(touch ran)", "board/a b"])
    expect(offered).toContain(reference);
  const { stdout, code } = await Command.run(["connect", "board/$(touch ran)", ...flags], {
    input: "there\n",
  });
  expect([stdout, code]).toEqual(["there\n", 0]);
  // Descriptions of the interface tell of no endpoint.
  for (const page of ["/openapi.json", "/asyncapi.json", "/docs"]) {
    expect(await (await fetch(url + page)).text()).not.toContain("touch ran");
  }
});
