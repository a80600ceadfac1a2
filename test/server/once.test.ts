import { expect, test } from "vitest";
import { once } from "../../server/once.ts";

test("what was made is kept, what failed is made again when it is asked for again", async () => {
  let made = 0;
  const get = once(async () => {
    made++;
    if (made === 1) throw new Error("not yet");
    return made;
  });
  // Who asks meanwhile gets the same.
  expect(await Promise.allSettled([get(), get()])).toMatchObject([
    { status: "rejected", reason: { message: "not yet" } },
    { status: "rejected", reason: { message: "not yet" } },
  ]);
  expect([await get(), await get(), made]).toEqual([2, 2, 2]);
});
