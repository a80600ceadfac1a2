import { defineConfig } from "vitest/config";
import { RequiredSuites } from "./test/support/required-suites.ts";

const ci = process.env["CI"] === "true";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // A process a file: tests share no poller, no descriptors and no signal handlers, and a crash names its file.
    pool: "forks",
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
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
