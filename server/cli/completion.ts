import type { Command } from "commander";
import { bashScript } from "./completion-bash.ts";
import { commandModel } from "./completion-model.ts";
import { zshScript } from "./completion-zsh.ts";

/** Prints a shell's script, made from the commands themselves. */
export function printCompletion(program: Command, shell: "bash" | "zsh"): void {
  const model = commandModel(program);
  process.stdout.write(shell === "bash" ? bashScript(model) : zshScript(model));
}
