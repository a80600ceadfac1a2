import { expect, test } from "vitest";
import { errorOf, FINAL, GONE, SLOW_READER } from "../../client/close-codes.ts";
import { closeCode } from "../../schemas/index.ts";

test("close codes are those of the schemas", () => {
  expect(FINAL).toEqual([closeCode.replaced, closeCode.policy]);
  expect(GONE).toEqual({
    [closeCode.guestReset]: "guest-gone",
    [closeCode.endpointWithdrawn]: "endpoint-gone",
  });
  expect(SLOW_READER).toBe(closeCode.slowReader);
  const names = Object.values(closeCode).map((code) => errorOf({ code, reason: "" }).code);
  expect(new Set(names)).toEqual(
    new Set(["connection-lost", "slow-reader", "guest-gone", "endpoint-gone", "replaced", "refused"]),
  );
  // A code as the reason.
  expect(errorOf({ code: closeCode.policy, reason: "unauthorized" }).code).toBe("unauthorized");
});
