import fc from "fast-check";
import { expect, test } from "vitest";
import { AddressTable } from "../../server/access/address-table.ts";
import { TokenBucket } from "../../server/access/token-bucket.ts";

test("so many at once, and then so many a second", () => {
  let now = 1000;
  const bucket = new TokenBucket({ perSecond: 10, burst: 3 }, () => now);
  expect([bucket.take(), bucket.take(), bucket.take()]).toEqual([0, 0, 0]);
  // The next one comes in 100 ms.
  expect(bucket.take()).toBe(100);
  now += 60;
  expect(bucket.take()).toBe(40);
  now += 40;
  expect(bucket.take()).toBe(0);
  expect(bucket.take()).toBe(100);
  expect(bucket.full).toBe(false);
  now += 300;
  expect(bucket.full).toBe(true);
  // No more than the burst is saved up.
  now += 3_600_000;
  expect([bucket.take(), bucket.take(), bucket.take(), bucket.take()]).toEqual([0, 0, 0, 100]);
});

test("what has happened already is made up for", () => {
  let now = 0;
  const bucket = new TokenBucket({ perSecond: 10, burst: 2 }, () => now);
  expect([bucket.spend(), bucket.spend(), bucket.spend(), bucket.spend()]).toEqual([0, 0, 100, 200]);
  now += 150;
  expect(bucket.wait()).toBe(50);
  now += 50;
  expect(bucket.wait()).toBe(0);
});

test("whatever comes when, in no span there is more than the burst and the rate", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.nat(100), { maxLength: 200 }),
      (perSecond, burst, pauses) => {
        let now = 0;
        const bucket = new TokenBucket({ perSecond, burst }, () => now);
        const taken: number[] = [];
        for (const pause of pauses) {
          now += pause;
          const wait = bucket.take();
          if (wait === 0) taken.push(now);
          // After the wait that was told, and not before, there is one.
          else expect(wait).toBeLessThanOrEqual(Math.ceil(1000 / perSecond));
        }
        for (const [i, from] of taken.entries()) {
          for (const [j, to] of taken.entries()) {
            if (j < i) continue;
            expect(j - i + 1).toBeLessThanOrEqual(burst + ((to - from) * perSecond) / 1000 + 1e-6);
          }
        }
      },
    ),
  );
});

test("addresses are forgotten when nothing is known of them, and not before", () => {
  let now = 0;
  const table = new AddressTable(
    { connectRate: { perSecond: 1, burst: 2 }, requestRate: { perSecond: 1, burst: 2 } },
    () => now,
  );
  const busy = table.get("busy");
  busy.connections++;
  table.get("spent").requests.take();
  for (let i = 0; i < 5000; i++) table.get(`a${i}`);
  now += 999;
  table.get("next");
  expect(table.get("spent").requests.full).toBe(false);
  now += 1001;
  table.get("another");
  expect(table.size).toBeLessThanOrEqual(2);
  expect(table.get("busy")).toBe(busy);
  expect(table.get("spent").requests.full).toBe(true);
});

test("beyond 65536 addresses the others count as one", () => {
  const table = new AddressTable({
    connectRate: { perSecond: 1, burst: 2 },
    requestRate: { perSecond: 1, burst: 2 },
  });
  for (let i = 0; i < 65_536; i++) table.get(`a${i}`).connections++;
  expect(table.get("b")).toBe(table.get("c"));
  expect(table.size).toBe(65_536);
});
