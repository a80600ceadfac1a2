import type { CommandModel, Value } from "./completion-model.ts";
import { allCommands } from "./completion-model.ts";
import { quoted } from "./shell-word.ts";

const LIVE = `
# The endpoints or guests of the running bridge, the one that the command line names.
_rpmsg_bridge_live() {
  local -a flags found
  local i
  for ((i = 2; i < CURRENT; i++)); do
    case $words[i] in
      --url=* | --token=*) flags+=(\${(Q)words[i]}) ;;
      --url | --token) flags+=($words[i]=\${(Q)words[++i]}) ;;
    esac
  done
  found=(\${(f)"$(\${(Q)\${program/#\\~\\//$HOME/}} complete $1 $flags </dev/null 2>/dev/null)"})
  compadd -a found
}
`;

const START = `
_rpmsg-bridge() {
  local program=$words[1]
  _rpmsg_bridge_command
}

# In a folder of fpath the file is the function's body; sourced, it makes the function known.
if [[ $funcstack[1] == _rpmsg-bridge ]]; then
  _rpmsg-bridge "$@"
else
  compdef _rpmsg-bridge rpmsg-bridge
fi
`;

/** The script for zsh: a function for each command. */
export function zshScript(model: CommandModel): string {
  return `#compdef rpmsg-bridge
# Completion of rpmsg-bridge for zsh: rpmsg-bridge completion zsh > "\${fpath[1]}/_rpmsg-bridge"
${LIVE}
${allCommands(model).map(commandFunction).join("\n\n")}
${START}`;
}

function commandFunction({ path, commands, options, arguments: values }: CommandModel): string {
  const specs = [
    ...options.flatMap(({ names, description, value }) =>
      names.map((name) => (value === undefined ? name : `${name}=`) + about(description) + action(value)),
    ),
    ...values.map((value, i) => `${i + 1}${action(value)}`),
  ];
  const states = commands.length === 0 ? [] : ["1:command:->command", "*::argument:->argument"];
  const lines = [...specs, ...states].map((spec) => `    ${quoted(spec)}`);
  const body = ["  local curcontext=$curcontext state line", `  _arguments -C \\\n${lines.join(" \\\n")}`];
  if (commands.length > 0) {
    const described = commands.map(({ name, description }) => `      ${quoted(`${name}:${description}`)}`);
    body.push(
      "  case $state in",
      `    command)\n      local -a commands=(\n  ${described.join("\n  ")}\n      )`,
      "      _describe -t commands command commands ;;",
      "    argument)\n      case $words[1] in",
      ...commands.map((each) => `        ${each.name}) ${functionName(each.path)} ;;`),
      "      esac ;;",
      "  esac",
    );
  }
  return `${functionName(path)}() {\n${body.join("\n")}\n}`;
}

function functionName(path: string): string {
  return ["_rpmsg_bridge_command", ...path.split(" ").filter((word) => word !== "")].join("_");
}

function about(description: string): string {
  return `[${description.replaceAll(/[[\]\\]/g, String.raw`\$&`)}]`;
}

function action(value: Value | undefined): string {
  if (value === undefined) return "";
  if (value === "anything") return ":value:";
  if (value === "files") return ":file:_files";
  if (value === "endpoints" || value === "guests") return `:${value}:{_rpmsg_bridge_live ${value}}`;
  return `:value:(${value.join(" ")})`;
}
