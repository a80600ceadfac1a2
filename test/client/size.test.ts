import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { bundle } from "./bundle.ts";

/** Bytes, bundled, minified and compressed. */
const BUDGET = 12_000;

test(`the whole client takes less than ${BUDGET} bytes`, async () => {
  const code = await bundle(fileURLToPath(import.meta.resolve("../../client/index.ts")));
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`client: ${size} bytes compressed, ${code.length} before`);
  expect(size).toBeLessThan(BUDGET);
  // Of an empty bundle it would be true as well.
  expect(code).toContain("rpmsg.v1.json");
});
