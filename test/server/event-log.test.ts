import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import type { LoggedEvent } from "../../server/event-log.ts";
import { EventLog } from "../../server/event-log.ts";
import { eventually } from "./support.ts";

/** So many are kept at least, and fewer than twice as many. */
const KEPT = 4096;
/** More than those are never kept. */
const SPARE = 256;
/** What the events are about. */
const SUBJECT = { guest: "vm", name: "x" };

/** A log with so many events, `e1` to the last, and what a listener from the start has heard. */
function logWith(count: number): { log: EventLog; heard: LoggedEvent[] } {
  const log = new EventLog("here");
  const heard: LoggedEvent[] = [];
  log.subscribe((event) => heard.push(event));
  for (let i = 1; i <= count; i++) remove(log, i);
  return { log, heard };
}

function remove(log: EventLog, number: number): void {
  log.publish("endpoint-removed", { id: `e${number}`, guest: "vm", name: "x", generation: 1 }, SUBJECT);
}

/** Of an endpoint only what a test looks at. */
function endpoint(id: string, clients: number): Endpoint {
  return { id, clients } as Endpoint;
}

describe("ids", () => {
  test("count from 1, after the bridge's own", () => {
    const { log, heard } = logWith(0);
    expect(log.latest).toBe("here:0");
    remove(log, 7);
    remove(log, 8);
    expect(heard.map(({ id }) => id)).toEqual(["here:1", "here:2"]);
    expect(log.latest).toBe("here:2");
    expect(heard.map(({ name, data }) => [name, JSON.parse(data)])).toEqual([
      ["endpoint-removed", { id: "e7", guest: "vm", name: "x", generation: 1 }],
      ["endpoint-removed", { id: "e8", guest: "vm", name: "x", generation: 1 }],
    ]);
  });

  test("are the same for all listeners, each of which hears what comes until it leaves", () => {
    const { log, heard } = logWith(1);
    const late: LoggedEvent[] = [];
    const leave = log.subscribe((event) => late.push(event));
    remove(log, 2);
    leave();
    remove(log, 3);
    expect(late).toEqual(heard.slice(1, 2));
    expect(heard).toHaveLength(3);
  });
});

describe("since", () => {
  test("gives what came after an event, in order", () => {
    const { log, heard } = logWith(10);
    for (let number = 0; number <= 10; number++) {
      expect(log.since(`here:${number}`)).toEqual(heard.slice(number));
    }
  });

  test.each([
    ["of another bridge", "there:3"],
    ["yet to come", "here:11"],
    ["before the first", "here:-1"],
    ["no number", "here:x"],
    ["no whole number", "here:1.5"],
    ["endless", "here:Infinity"],
    ["a number alone", "3"],
    ["nothing", ""],
    ["nothing behind the bridge's", "here:"],
    ["something before it", " here:3"],
  ])("knows nothing of an event that is %s", (_what, id) => {
    expect(logWith(10).log.since(id)).toBeUndefined();
  });

  test("knows at least the latest 4096, and not many more", () => {
    for (const count of [KEPT, 2 * KEPT - 1, 2 * KEPT, 2 * KEPT + 1, 3 * KEPT + 17]) {
      const { log, heard } = logWith(count);
      expect(log.since(`here:${count - KEPT}`)).toEqual(heard.slice(-KEPT));
      expect(log.since(`here:${Math.max(-1, count - KEPT - SPARE)}`)).toBeUndefined();
    }
  });

  test("from wherever one was: what was heard before and what is given is all there was, once", () => {
    const property = fc.property(fc.nat({ max: 3 * KEPT }), fc.nat({ max: 3 * KEPT }), (count, at) => {
      const { log, heard } = logWith(count);
      const missed = log.since(`here:${at}`);
      if (missed === undefined) expect(at > count || count - at > KEPT).toBe(true);
      else expect([...heard.slice(0, at), ...missed]).toEqual(heard);
    });
    fc.assert(property, { numRuns: 30 });
  });
});

describe("changes of an endpoint", () => {
  test("that come together are told once, as it is then", async () => {
    const { log, heard } = logWith(0);
    const one = { ...SUBJECT };
    const other = { ...SUBJECT };
    let clients = 0;
    for (let i = 0; i < 1000; i++) {
      clients++;
      log.endpointChanged(one, () => endpoint("e1", clients));
      if (i === 500) log.endpointChanged(other, () => endpoint("e2", 0));
    }
    expect(heard).toEqual([]);
    clients = 1234;
    await eventually("they are told", () => heard[1]);
    expect(heard.map(({ id, data }) => [id, JSON.parse(data)])).toEqual([
      ["here:1", { id: "e1", clients: 1234 }],
      ["here:2", { id: "e2", clients: 0 }],
    ]);
  });

  test("are told at once where something else is to be told, and not again", async () => {
    const { log, heard } = logWith(0);
    const one = { ...SUBJECT };
    log.endpointChanged(one, () => endpoint("e1", 1));
    log.flush();
    expect(heard.map(({ data }) => JSON.parse(data))).toEqual([{ id: "e1", clients: 1 }]);
    log.flush();
    log.endpointChanged({ ...SUBJECT }, () => endpoint("e2", 0));
    await eventually("the other is told", () => heard[1]);
    expect(heard.map(({ data }) => JSON.parse(data).id)).toEqual(["e1", "e2"]);
  });

  test("are not told of one that is gone meanwhile", async () => {
    const { log, heard } = logWith(0);
    const gone = { ...SUBJECT };
    log.endpointChanged(gone, () => {
      throw new Error("it is gone");
    });
    log.endpointChanged({ ...SUBJECT }, () => endpoint("e2", 0));
    log.forget(gone);
    remove(log, 1);
    await eventually("the other is told", () => heard[1]);
    expect(heard.map(({ name, data }) => [name, JSON.parse(data).id])).toEqual([
      ["endpoint-removed", "e1"],
      ["endpoint", "e2"],
    ]);
  });

  test("one that changes all the time is told now and then, and at the end as it is", async () => {
    const { log, heard } = logWith(0);
    const one = { ...SUBJECT };
    let clients = 0;
    const begun = performance.now();
    await eventually("200 ms", () => {
      clients++;
      log.endpointChanged(one, () => endpoint("e1", clients));
      return performance.now() - begun > 200 ? true : undefined;
    });
    const last = clients;
    const latest = () => JSON.parse(heard.at(-1)?.data ?? "{}").clients as number | undefined;
    await eventually("the last one", () => (latest() === last ? true : undefined));
    // No more than one in 20 ms, the first and the last besides.
    expect(heard.length).toBeLessThanOrEqual((performance.now() - begun) / 20 + 2);
    expect(heard.length).toBeGreaterThan(1);
    const told = heard.map(({ data }) => JSON.parse(data).clients as number);
    expect(told).toEqual(told.toSorted((a, b) => a - b));
    expect(new Set(told).size).toBe(told.length);
  });
});
