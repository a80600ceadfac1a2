import { mutator } from "../../fuzz/mutator.ts";
import { fuzzed } from "../fuzzed.ts";

export const scenario = fuzzed(
  mutator,
  { seconds: { test: 1, short: 10, full: 60 } },
  {
    fault:
      "a guest changes rings, headers and payloads from a thread of its own while the device looks at them",
    passes:
      "no crash, no write outside of the buffers, no message that is longer than what was checked, or of bytes that no guest wrote",
  },
);
