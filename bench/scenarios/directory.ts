import { setTimeout as elapsed } from "node:timers/promises";
import { startBenchBridge } from "../bridge.ts";
import { deferred } from "../load/deferred.ts";
import type { Scenario } from "../scenario.ts";

const ANNOUNCEMENTS = 1000;
const GUESTS = 10;
/** About as long as all pages take. */
const IDLE_MS = 250;

interface Page {
  endpoints: unknown[];
  next: string | null;
}

/** When so many endpoint events have come, in milliseconds since 1970; all those of before `ready` do not count. */
async function timeOfEvents(url: string, count: number, ready: () => void): Promise<number> {
  const response = await fetch(`${url}/api/v1/events`);
  if (response.body === null) throw new Error("no events");
  let text = "";
  let listed = 0;
  const decoder = new TextDecoder();
  const ids = new Set<string>();
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const [name = "", id = ""] = [/^event: (.*)$/m, /"id":"([^"]*)"/].map(
        (each) => each.exec(text.slice(0, end))?.[1],
      );
      text = text.slice(end + 2);
      if (name === "ready") ready();
      else if (name === "endpoint" && !ids.has(id)) {
        ids.add(id);
        if (++listed === count) return performance.timeOrigin + performance.now();
      }
    }
  }
  throw new Error(`the events ended after ${listed} endpoints`);
}

/** From the connection of a guest with many services to the event of the last one: more than from its last announcement. */
const attach: Scenario = {
  name: "attach-1000",
  title: `A guest that announces ${ANNOUNCEMENTS} services`,
  figure: { name: "listedMs", label: "milliseconds from its connection until all are listed" },
  async start() {
    return {
      variants: {
        async bridge() {
          const bridge = await startBenchBridge({ vm: {} });
          try {
            const ready = deferred();
            const last = timeOfEvents(bridge.url, ANNOUNCEMENTS, ready.resolve);
            await ready.promise;
            const guest = await bridge.runGuests([{ socket: bridge.socketOf("vm"), echoes: ANNOUNCEMENTS }]);
            const listedMs = (await last) - Number(guest.ready["startedAt"]);
            const response = await fetch(`${bridge.url}/api/v1/guests/vm/endpoints`);
            const { endpoints } = (await response.json()) as Page;
            if (endpoints.length !== ANNOUNCEMENTS) throw new Error(`${endpoints.length} are listed`);
            return { listedMs };
          } finally {
            await bridge.stop();
          }
        },
      },
      stop: async () => undefined,
    };
  },
};

/** The list of many endpoints, page after page, and how long the event loop of the bridge stands still meanwhile. */
const pages: Scenario = {
  name: "list-10000",
  title: `The list of ${ANNOUNCEMENTS * GUESTS} endpoints`,
  figure: { name: "blockedMs", label: "milliseconds that the event loop stands still at most" },
  async start() {
    const endpoints = Array.from({ length: ANNOUNCEMENTS }, (_, i) => ({ name: `service-${i}`, ns: "down" }));
    const guests = Array.from({ length: GUESTS }, (_, i) => [`vm${i}`, { endpoints }] as const);
    const bridge = await startBenchBridge(Object.fromEntries(guests), {
      probe: true,
      readyTimeoutMs: 60_000,
    });
    const list = async (limit: string) => {
      await bridge.process.ask("watch");
      const start = performance.now();
      let after = "";
      let count = 0;
      let requests = 0;
      for (;;) {
        const response = await fetch(`${bridge.url}/api/v1/endpoints?${limit}${after}`);
        const page = (await response.json()) as Page;
        count += page.endpoints.length;
        requests++;
        if (page.next === null) break;
        after = `&after=${encodeURIComponent(page.next)}`;
      }
      const listMs = performance.now() - start;
      const { blockedMs } = await bridge.process.ask("figures");
      if (count !== ANNOUNCEMENTS * GUESTS) throw new Error(`${count} endpoints in ${requests} pages`);
      return { blockedMs, listMs, requests };
    };
    // The first ones compile.
    for (let i = 0; i < 3; i++) await list("limit=100");
    return {
      variants: {
        // What other processes of the machine do to a loop that has nothing to do.
        "no request": async () => {
          await bridge.process.ask("watch");
          await elapsed(IDLE_MS);
          return { blockedMs: (await bridge.process.ask("figures")).blockedMs };
        },
        "100 a page": () => list("limit=100"),
        "default pages": () => list(""),
        "all in one": () => list("limit=10000"),
      },
      stop: () => bridge.stop(),
    };
  },
};

export const directories = [attach, pages];
