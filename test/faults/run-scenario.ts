import { fork } from "node:child_process";
import { readdirSync } from "node:fs";
import { basename, dirname } from "node:path";
import { compiled } from "../../bench/harness.ts";
import type { Result, Scale } from "./scenario.ts";

const CHILD = "test/faults/child.js";

/** Names of all scenarios, in the order of the table. */
export function scenarioNames(): string[] {
  const files = readdirSync(`${dirname(compiled(CHILD))}/scenarios`);
  return files
    .filter((file) => file.endsWith(".js"))
    .map((file) => basename(file, ".js"))
    .toSorted();
}

/** Runs a scenario in a process of its own: one that crashes has not passed. */
export async function runScenario(name: string, scale: Scale): Promise<Result> {
  const child = fork(compiled(CHILD), [name, scale], {
    execArgv: ["--expose-gc", "--enable-source-maps"],
    // Standard output belongs to the table.
    stdio: ["ignore", 2, 2, "ipc"],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  let result: Result | undefined;
  child.once("message", (message) => {
    result = message as Result;
  });
  const how = await new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  process.off("exit", kill);
  const problem = `the process of the scenario ended with ${how}`;
  if (result === undefined) {
    return { name, fault: name, passes: "it ends", measured: "nothing", problems: [problem], seconds: 0 };
  }
  return how === "exit code 0" ? result : { ...result, problems: [...result.problems, problem] };
}
