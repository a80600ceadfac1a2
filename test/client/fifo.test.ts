import fc from "fast-check";
import { expect, test } from "vitest";
import { Fifo } from "../../client/fifo.ts";

test("a queue does what an array does", () => {
  const step = fc.oneof(
    fc.record({ what: fc.constant("push" as const), value: fc.nat(9) }),
    fc.record({ what: fc.constant("shift" as const), value: fc.nat(9) }),
    fc.record({ what: fc.constant("filter" as const), value: fc.nat(9) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const fifo = new Fifo<number>();
      let model: number[] = [];
      for (const { what, value } of steps) {
        if (what === "push") {
          fifo.push(value);
          model.push(value);
        } else if (what === "shift") {
          expect(fifo.shift()).toBe(model.shift());
        } else {
          fifo.filter((each) => each !== value);
          model = model.filter((each) => each !== value);
        }
        expect([fifo.size, fifo.first()]).toEqual([model.length, model[0]]);
      }
    }),
  );
});
