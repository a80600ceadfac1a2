import { defineConfig } from "vitest/config";
import { RequiredSuites } from "./test/support/required-suites.ts";

const ci = process.env["CI"] === "true";

/** What guests behind a socket do to their clients is the same when their attachment has a process of its own. */
const isolated = [
  "announce-end",
  "announce-service",
  "busy-poll",
  "channel-attachment",
  "channel-drain",
  "channel-to-guest",
  "json-resets",
  "json-results",
  "json-states",
  "mux-resets",
  "rest-messages",
  "session-resume",
  "sharing-local",
];

export default defineConfig({
  test: {
    projects: [
      { extends: true, test: { name: "all", include: ["test/**/*.test.ts"] } },
      {
        extends: true,
        test: {
          name: "isolated",
          include: isolated.map((suite) => `test/server/${suite}.test.ts`),
          env: { RPMSG_TEST_ISOLATION: "process" },
        },
      },
    ],
    // A process a file: tests share no poller, no descriptors and no signal handlers, and a crash names its file.
    pool: "forks",
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    // Of `expect.poll`, which gives up after a second otherwise: a page of a busy machine takes longer.
    expect: { poll: { timeout: 15_000 } },
    // A flaky test is a bug.
    retry: 0,
    allowOnly: !ci,
    reporters: ["default", new RequiredSuites({ failOnSkip: ci })],
    coverage: {
      provider: "v8",
      include: ["client/**/*.ts", "guest/**/*.ts", "rpmsg/**/*.ts", "schemas/**/*.ts", "server/**/*.ts"],
      reporter: ["text-summary", "html"],
    },
  },
});
