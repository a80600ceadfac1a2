import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ServiceEndpoint } from "../../guest/index.ts";
import { EmulatedGuest, service } from "../../guest/index.ts";
import type { ConfigInput, Endpoint } from "../../schemas/index.ts";
import { EndpointList } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { listedView, Watcher } from "./events-watcher.ts";
import type { Attached } from "./name-service-guest.ts";
import { attach } from "./name-service-guest.ts";
import { Client, testDirectory } from "./support.ts";

const NAMES = ["a", "b", "own"] as const;
const ADDRESSES = [1024, 1025, 1026, 1027] as const;

/** A guest that is asked by its services to speak. */
interface Talkative {
  readonly guest: EmulatedGuest;
  /** The endpoints of the running guest, and of those that ran before. */
  readonly endpoints: ServiceEndpoint[];
}

function talkative(): Talkative {
  const endpoints: ServiceEndpoint[] = [];
  const factory = service((endpoint) => {
    endpoints.push(endpoint);
    return ({ text, reply }) => reply(text);
  });
  const services = { own: factory, agreed: { service: factory, ns: "none" as const, address: 48 } };
  const guest = new EmulatedGuest({ services, otherService: () => factory, onError: () => {} });
  return { guest, endpoints };
}

/** What operations work on. */
interface World extends Talkative {
  readonly url: string;
  readonly clients: Client[];
  /** It is there from the beginning. */
  readonly steady: Watcher;
  /** It leaves and comes back. */
  restless: Watcher;
  /** The guest comes, or leaves, where it can. */
  readonly come: () => Promise<void>;
  readonly leave: () => Promise<void>;
}

/** Something that happens to the world; it may be refused, which is no event. */
type Operation = readonly [text: string, run: (world: World) => unknown];

async function listed({ url }: World): Promise<Endpoint[]> {
  return EndpointList.parse(await (await fetch(`${url}/api/v1/endpoints`)).json()).endpoints;
}

/** One of a list, by a number. */
function pick<T>(list: readonly T[], which: number): T | undefined {
  return list[which % Math.max(1, list.length)];
}

/** What cannot be done now is not done. */
async function attempt(action: () => unknown): Promise<void> {
  try {
    await action();
  } catch {}
}

const name = fc.constantFrom(...NAMES);
const address = fc.option(fc.constantFrom(...ADDRESSES), { nil: undefined });

const declare = fc
  .record({ name, ns: fc.constantFrom("none", "down", "up", "both"), address })
  .map<Operation>((body) => [
    `declare ${JSON.stringify(body)}`,
    ({ url }) =>
      fetch(`${url}/api/v1/guests/g/endpoints`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }),
  ]);

const withdraw = fc.nat().map<Operation>((which) => [
  `withdraw ${which}`,
  async (world) => {
    const { id } = pick(await listed(world), which) ?? {};
    await fetch(`${world.url}/api/v1/guests/g/endpoints/${id}`, { method: "DELETE" });
  },
]);

const announce = fc.tuple(name, address).map<Operation>(([named, at]) => [
  `the guest announces ${named}@${at}`,
  ({ guest, endpoints }) =>
    guest.announce(
      named,
      service((endpoint) => {
        endpoints.push(endpoint);
        return undefined;
      }),
      at,
    ),
]);

const takeBack = name.map<Operation>((named) => [
  `the guest withdraws ${named}`,
  ({ guest }) => guest.withdraw(named),
]);

const connect = fc
  .tuple(fc.nat(), fc.constantFrom("", "share=shared", "share=exclusive&takeover=1", "local=1027"))
  .map<Operation>(([which, query]) => [
    `connect to ${which} with ${query}`,
    async (world) => {
      const endpoint = pick(await listed(world), which);
      const path = `${endpoint?.path}?origin=${endpoint?.origin}&${query}`;
      world.clients.push(await Client.open(world.url.replace("http", "ws") + path.replace(/&$/, "")));
    },
  ]);

const disconnect = fc
  .nat()
  .map<Operation>((which) => [
    `disconnect ${which}`,
    ({ clients }) => clients.splice(which % Math.max(1, clients.length), 1)[0]?.close(),
  ]);

const speak = fc
  .tuple(fc.nat(), fc.constantFrom(...ADDRESSES))
  .map<Operation>(([which, to]) => [
    `the guest speaks to ${to} from ${which}`,
    ({ endpoints }) => pick(endpoints, which)?.send("hello", to),
  ]);

const watchAnew = fc.boolean().map<Operation>((resume) => [
  `watch anew, ${resume ? "" : "not "}resuming`,
  async (world) => {
    const { url, restless } = world;
    restless.close();
    await restless.ended;
    world.restless = resume ? await Watcher.ready(url, restless.lastId, restless) : await Watcher.ready(url);
  },
]);

const plain = fc.constantFrom<Operation>(
  ["reboot", ({ guest }) => guest.reboot()],
  ["pause", ({ guest }) => guest.pause()],
  ["resume", ({ guest }) => guest.resume()],
  ["come", ({ come }) => come()],
  ["leave", ({ leave }) => leave()],
  ["wait", (world) => agree(world)],
);

const operation = fc.oneof(
  ...[declare, declare, withdraw, announce, takeBack, connect, connect, disconnect, speak, watchAnew, plain],
  plain,
);

/** Waits until both watchers know what the lists say; where they do not, tells how they differ. */
async function agree(world: World): Promise<void> {
  const { url, steady } = world;
  const deadline = performance.now() + 5000;
  for (;;) {
    const expected = await listedView(url);
    const views = [steady.view, world.restless.view];
    if (views.every((view) => JSON.stringify(view) === JSON.stringify(expected))) return;
    if (performance.now() < deadline) continue;
    expect(views[0]).toEqual(expected);
    expect(views[1]).toEqual(expected);
  }
}

/** Runs operations in a world of their own, and looks at the end, and whenever they say, whether all know the same. */
async function run(
  operations: readonly Operation[],
  input: ConfigInput,
  talk: Talkative,
  given: boolean,
  way: Pick<World, "come" | "leave">,
): Promise<void> {
  const bridge = await startBridge(
    { listen: "127.0.0.1:0", limits: { drainTimeout: 100 }, ...input },
    given ? { guests: { g: talk.guest } } : {},
  );
  const { url } = bridge;
  const steady = await Watcher.ready(url);
  const restless = await Watcher.ready(url);
  const world: World = { ...talk, ...way, url, clients: [], steady, restless };
  try {
    for (const [text, happens] of operations) {
      if (text === "wait") await agree(world);
      else await attempt(() => happens(world));
    }
    await agree(world);
  } finally {
    for (const client of world.clients) client.socket.terminate();
    await way.leave();
    for (const watcher of [steady, world.restless]) watcher.close();
    await bridge.close();
  }
}

const runs = { numRuns: 40, endOnFailure: false };
const some = fc.array(operation, { minLength: 1, maxLength: 25 });

describe("whatever happens, those who watch know in the end what the lists say", () => {
  test("with a guest of this process", { timeout: 60_000 }, async () => {
    const nothing = async () => {};
    const property = fc.asyncProperty(some, (operations) =>
      run(operations, {}, talkative(), true, { come: nothing, leave: nothing }),
    );
    await fc.assert(property, runs);
  });

  test.skipIf(unsupported !== undefined)(
    titled("with a guest that comes and goes"),
    { timeout: 60_000 },
    async () => {
      const directory = testDirectory();
      let number = 0;
      const property = fc.asyncProperty(some, (operations) => {
        const path = join(directory, `${++number}.sock`);
        const talk = talkative();
        let attached: Attached | undefined;
        const leave = async (): Promise<void> => {
          attached?.vm.close();
          await attached?.closed;
          attached = undefined;
        };
        const come = async (): Promise<void> => {
          attached ??= await attach(talk.guest, path);
        };
        const first: Operation = ["come", come];
        const guests = { g: { kind: "vhost-user" as const, path } };
        return run([first, ...operations], { guests }, talk, false, { come, leave });
      });
      await fc.assert(property, runs);
    },
  );
});
