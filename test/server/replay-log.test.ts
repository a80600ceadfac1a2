import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { Config } from "../../schemas/index.ts";
import { ReplayLog } from "../../server/channel/replay-log.ts";
import { MemoryBudget } from "../../server/memory-budget.ts";
import { collectGarbage } from "../rpmsg/posix/support.ts";

test("what is beyond sessionBytes is not only forgotten, but free", async () => {
  const { limits } = Config.parse({ limits: { sessionBytes: 10_000 } });
  const log = new ReplayLog(limits, new MemoryBudget(limits.clientBytes, () => {}));
  const texts: WeakRef<Buffer>[] = [];
  for (let seq = 1; seq <= 500; seq++) {
    const text = Buffer.alloc(936, "x");
    texts.push(new WeakRef(text));
    log.push(seq, text);
  }
  expect(log.after(0).map(({ seq }) => seq)).toEqual([491, 492, 493, 494, 495, 496, 497, 498, 499, 500]);
  // What a WeakRef was just made of lives until the end of the turn.
  await nextTurn();
  await collectGarbage();
  expect(texts.filter((text) => text.deref() !== undefined)).toHaveLength(10);
});
