import { writeSync } from "node:fs";
import type { SerializedError } from "vitest";
import type { Reporter, TestCase, TestModule, TestRunEndReason } from "vitest/node";

/**
 * The last word of a test run: one plain line `N passed, N failed` on standard output, after everything else.
 *
 * A failure is a failed test, a hook or a file that failed around its tests, an error that no test caught, or a run
 * that was broken off. With `failOnSkip` a skipped test is one too, named with its reason: where everything that a
 * suite needs is installed, as in CI, skipping hides that it no longer runs.
 */
export class RequiredSuites implements Reporter {
  readonly #failOnSkip: boolean;

  constructor(options: { failOnSkip: boolean }) {
    this.#failOnSkip = options.failOnSkip;
  }

  onTestRunEnd(
    modules: readonly TestModule[],
    unhandledErrors: readonly SerializedError[],
    reason: TestRunEndReason,
  ): void {
    let passed = 0;
    let failed = unhandledErrors.length;
    const skipped: TestCase[] = [];

    for (const module of modules) {
      failed += module.errors().length;
      // A hook that failed: its tests are among the skipped ones.
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === "passed") passed += 1;
        else if (state === "failed") failed += 1;
        else skipped.push(test);
      }
    }

    const verdict = this.#failOnSkip ? "skipped, which is a failure here" : "skipped";
    for (const test of skipped) console.error(`${verdict}: ${describe(test)}`);
    if (this.#failOnSkip) failed += skipped.length;
    // Broken off, or no test found.
    if (failed === 0 && (reason !== "passed" || passed === 0)) failed = 1;
    if (failed > 0) process.exitCode = 1;

    // The summary and the coverage table come after this call.
    process.once("exit", () => writeSync(process.stdout.fd, `${passed} passed, ${failed} failed\n`));
  }
}

function describe(test: TestCase): string {
  return `${test.module.relativeModuleId} > ${test.fullName} (${reasonOf(test)})`;
}

function reasonOf(test: TestCase): string {
  const result = test.result();
  if (result.state === "skipped" && result.note !== undefined) return result.note;
  // Nobody asked to skip it: what runs before it has failed.
  if (test.options.mode === "run") return "never ran: a hook or the process of its file failed";
  return `${test.options.mode}, no reason given`;
}
