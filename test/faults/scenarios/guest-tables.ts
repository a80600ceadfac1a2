import { tables } from "../../fuzz/tables.ts";
import { fuzzed } from "../fuzzed.ts";

export const scenario = fuzzed(
  tables,
  { cases: { test: 2000, short: 100_000, full: 10_000_000 } },
  {
    fault: "random and structured descriptor tables",
    passes: "no crash, no write outside the buffers (canaries), each head returned at most once",
  },
);
