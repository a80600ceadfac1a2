import { vhostUser } from "../../fuzz/vhost-user.ts";
import { fuzzed } from "../fuzzed.ts";

export const scenario = fuzzed(
  vhostUser,
  { cases: { test: 300, short: 5000, full: 60_000 } },
  {
    fault:
      "random vhost-user messages in every state with random descriptors, about 20 in each case, 1.3 million at full scale",
    passes: "an error or a close, nothing else; descriptor count unchanged, RSS 5 MiB more at most",
  },
);
