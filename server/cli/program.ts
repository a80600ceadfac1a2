import { CommanderError } from "commander";
import { ConfigError } from "../config/config-error.ts";
import { CommandError, exitCode } from "./command-error.ts";
import { buildProgram } from "./commands.ts";

/**
 * Runs one command.
 * @returns the exit code: 0 done, 1 failed, 2 the command line or the configuration is wrong
 */
export async function runProgram(args: string[]): Promise<number> {
  // Whoever reads our output has seen enough, as `head` does.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(exitCode.done);
  });
  try {
    await buildProgram().parseAsync(args, { from: "user" });
    return exitCode.done;
  } catch (error) {
    if (error instanceof CommanderError) {
      // commander has printed its message; asking for help is no mistake.
      return error.exitCode === 0 ? exitCode.done : exitCode.usage;
    }
    if (error instanceof ConfigError) {
      console.error(`rpmsg-bridge: configuration: ${error.message}`);
      return exitCode.usage;
    }
    if (error instanceof CommandError) {
      console.error(`rpmsg-bridge: ${error.message}`);
      return error.exitCode;
    }
    throw error;
  }
}
