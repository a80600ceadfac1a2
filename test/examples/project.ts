import type { ChildProcessByStdio } from "node:child_process";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { testDirectory } from "../server/support.ts";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A folder where the package and `ws` are installed. */
export function project(): string {
  const directory = testDirectory();
  mkdirSync(join(directory, "node_modules/@types"), { recursive: true });
  symlinkSync(ROOT, join(directory, "node_modules/rpmsg-bridge"));
  for (const name of ["ws", "@types/ws", "@types/node"]) {
    symlinkSync(join(ROOT, "node_modules", name), join(directory, "node_modules", name));
  }
  writeFileSync(join(directory, "package.json"), '{ "type": "module" }');
  return directory;
}

type Child = ChildProcessByStdio<null, Readable, Readable>;

/** Starts a command line as a shell has it, in a group of its own, which is ended with the test. */
export function shell(
  command: string,
  directory: string,
  environment: NodeJS.ProcessEnv = {},
): { child: Child; exited: Promise<unknown[]> } {
  const { PATH, HOME } = process.env;
  const child = spawn("sh", ["-c", command], {
    cwd: directory,
    env: { PATH, HOME, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const exited = once(child, "close");
  onTestFinished(async () => {
    if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    await exited;
  });
  return { child, exited };
}

/** Runs one to its end, which is to be a good one. */
export async function run(
  command: string,
  directory: string,
  environment?: NodeJS.ProcessEnv,
): Promise<{ stdout: string; stderr: string }> {
  const { child, exited } = shell(command, directory, environment);
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].on("data", (part: Buffer) => {
      output[name] += part.toString();
    });
  }
  const [code] = (await exited) as [number | null];
  if (code !== 0) throw new Error(`${command}: exit code ${code}\n${output.stdout}${output.stderr}`);
  return output;
}
