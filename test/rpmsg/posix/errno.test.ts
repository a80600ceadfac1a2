import { constants } from "node:os";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { errno, errnoName } from "../../../rpmsg/posix/errno.ts";

describe("errno", () => {
  it("names an error number, negated or not", () => {
    expect(errnoName(111)).toBe("ECONNREFUSED");
    expect(errnoName(-111)).toBe("ECONNREFUSED");
    expect(errnoName(-errno.EAGAIN)).toBe("EAGAIN");
  });

  it("says the number of an unknown error", () => {
    expect(errnoName(999)).toBe("errno 999");
    expect(errnoName(-999)).toBe("errno 999");
  });

  it.skipIf(process.platform !== "linux")("has the numbers of this system (needs Linux)", () => {
    const system: Readonly<Record<string, number>> = constants.errno;
    for (const [name, code] of Object.entries(errno)) {
      if (name in system) {
        expect([name, code]).toEqual([name, system[name]]);
      }
    }
  });
});
