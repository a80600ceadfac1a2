import type { Command, Option } from "commander";

/** What completes a value: one of these words, or what the file system or the running bridge has. */
export type Value = readonly string[] | "files" | "endpoints" | "guests" | "anything";

interface OptionModel {
  /** `--help` and `-h` */
  names: string[];
  description: string;
  /** What the word after it can be; undefined where it needs none. */
  value: Value | undefined;
}

/** A command as completion sees it: what its help shows. */
export interface CommandModel {
  /** Empty for the program itself, `config check` for a command of a command. */
  path: string;
  name: string;
  description: string;
  commands: CommandModel[];
  options: OptionModel[];
  arguments: Value[];
}

export function commandModel(command: Command, above: readonly string[] = []): CommandModel {
  const help = command.createHelp();
  const commands = help.visibleCommands(command);
  const names = commands.map((each) => each.name()).filter((name) => name !== "help");
  return {
    path: above.join(" "),
    name: command.name(),
    description: help.subcommandDescription(command),
    commands: commands.map((each) => {
      const model = commandModel(each, [...above, each.name()]);
      // The command `help` takes the name of another one.
      return each.name() === "help" ? { ...model, arguments: [names] } : model;
    }),
    options: help.visibleOptions(command).map(optionModel),
    arguments: command.registeredArguments.map((each) => valueKind(each.argChoices, each.name())),
  };
}

/** All commands of a model, itself first. */
export function allCommands(model: CommandModel): CommandModel[] {
  return [model, ...model.commands.flatMap(allCommands)];
}

function optionModel({ flags, long, short, description, required, argChoices }: Option): OptionModel {
  const [, placeholder = ""] = /<(.*)>/.exec(flags) ?? [];
  return {
    names: [long, short].filter((name) => name !== undefined),
    description,
    value: required ? valueKind(argChoices, placeholder) : undefined,
  };
}

/** The names of arguments and values tell what they are. */
function valueKind(choices: readonly string[] | undefined, name: string): Value {
  if (choices !== undefined) return choices;
  if (name === "file" || name === "path") return "files";
  if (name === "endpoint" || name === "guest") return `${name}s`;
  return "anything";
}
