import { describe, expect, test } from "vitest";
import { bucketsOf, quantile, since } from "../../web/latency.ts";
import { untilNext } from "../../web/pace.ts";
import { Meter } from "../../web/rates.ts";
import { Series } from "../../web/series.ts";
import { testBridge } from "../server/support.ts";

const NAME = "rpmsg_guest_to_socket_seconds";

describe("latency", () => {
  test("is read of the bridge's own metrics", async () => {
    const { url, connect } = await testBridge();
    const client = await connect("/ws/v1/demo/echo");
    client.send("hello");
    await client.next();
    const buckets = bucketsOf(await (await fetch(`${url}/metrics`)).text(), NAME);
    expect(buckets?.at(-1)?.[0]).toBe(Number.POSITIVE_INFINITY);
    expect(buckets?.at(-1)?.[1]).toBeGreaterThan(0);
    expect(quantile(buckets ?? [], 0.5)).toBeGreaterThan(0);
    expect(bucketsOf("# nothing", NAME)).toBe(undefined);
  });

  test("quantiles lie between the bounds, and what was before does not count", () => {
    const before = [
      [1, 10],
      [2, 10],
      [Number.POSITIVE_INFINITY, 10],
    ] as const;
    const after = [
      [1, 10],
      [2, 14],
      [Number.POSITIVE_INFINITY, 14],
    ] as const;
    const recent = since(before, after);
    expect(recent.map(([, count]) => count)).toEqual([0, 4, 4]);
    expect([0.25, 0.5, 1].map((q) => quantile(recent, q))).toEqual([1.25, 1.5, 2]);
    expect(quantile(since(after, after), 0.5)).toBe(null);
    // Beyond the last bound nothing is known but that.
    expect(
      quantile(
        [
          [1, 0],
          [Number.POSITIVE_INFINITY, 3],
        ],
        0.5,
      ),
    ).toBe(1);
  });
});

describe("rates", () => {
  test("are what came in a second, from the second look on", () => {
    const meter = new Meter();
    expect(meter.look(10, { a: 5 })).toBe(undefined);
    expect(meter.look(12, { a: 9, b: 4 })).toEqual({ a: 2, b: 2 });
    expect(meter.look(12, { a: 9 })).toBe(undefined);
  });

  test("there are none where a counter was started again", () => {
    const meter = new Meter();
    meter.look(1, { a: 100 });
    expect(meter.look(2, { a: 3 })).toBe(undefined);
    expect(meter.look(3, { a: 5 })).toEqual({ a: 2 });
  });
});

test("a series keeps the latest rows", () => {
  const series = new Series(2, 3);
  for (let i = 0; i < 5; i++) series.push(i, [i * 10, null]);
  expect(series.columns).toEqual([
    [2, 3, 4],
    [20, 30, 40],
    [null, null, null],
  ]);
});

test.each([
  ["a quick look", 5, false, 995],
  ["one that takes a tenth of the time", 95, false, 950],
  ["a slow one", 500, false, 5000],
  ["a very slow one", 60_000, false, 10_000],
  ["one that failed at once", 3, true, 1000],
  ["one that failed slowly", 60_000, true, 1000],
])("after %s the next one comes in time", (_what, took, failed, wait) => {
  expect(untilNext(1000, took, failed)).toBe(wait);
});
