import { CommanderError } from "commander";
import { ConfigError } from "../config/config-error.ts";
import { CommandError, exitCode } from "./command-error.ts";
import { buildProgram } from "./commands.ts";
import { printable } from "./terminal.ts";

/**
 * Runs one command.
 * @returns the exit code: 0 done, 1 failed, 2 the command line or the configuration is wrong
 */
export async function runProgram(args: string[]): Promise<number> {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    // Whoever reads our output has seen enough, as `head` does.
    if (error.code === "EPIPE") process.exit(exitCode.done);
    console.error(`rpmsg-bridge: standard output: ${error.message}`);
    process.exit(exitCode.failed);
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
      console.error(`rpmsg-bridge: configuration: ${oneLine(error.message)}`);
      return exitCode.usage;
    }
    if (error instanceof CommandError) {
      console.error(`rpmsg-bridge: ${oneLine(error.message)}`);
      return error.exitCode;
    }
    throw error;
  }
}

/** Errors name what was wrong in a guest's, a file's or a bridge's own words. */
function oneLine(message: string): string {
  return printable(message.trim().replaceAll(/\s*\n\s*/g, " "));
}
