import type { CommandModel, Value } from "./completion-model.ts";
import { allCommands } from "./completion-model.ts";

/** What knows no command. It does without what bash 3.2, that of macOS, does not have. */
const ENGINE = `
# Offers those of the candidates that begin with what is typed. Names come from guests: the shell must not run them.
_rpmsg_bridge_offer() {
  local candidate
  for candidate in "$@"; do
    [[ $candidate == "$cur"* ]] || continue
    case $quote in
      '"') [[ $candidate != *['"$\`\\!']* ]] || continue ;;
      "'") [[ $candidate != *"'"* ]] || continue ;;
      *) printf -v candidate %q "$candidate" ;;
    esac
    COMPREPLY+=("\${candidate#"$kept"}")
  done
}

# Offers the endpoints or guests of the running bridge, the one that the command line names.
_rpmsg_bridge_live() {
  local -a flags=() found=()
  local i line
  for ((i = 1; i < last; i++)); do
    case \${words[i]} in
      --url=* | --token=*) flags+=("\${words[i]//[\\"\\']/}") ;;
      --url | --token) flags+=("\${words[i]}=\${words[++i]//[\\"\\']/}") ;;
    esac
  done
  while IFS= read -r line; do found+=("$prefix$line"); done < <(
    "\${words[0]/#\\~\\//\${HOME-}/}" complete "$1" \${flags[@]+"\${flags[@]}"} </dev/null 2>/dev/null
  )
  _rpmsg_bridge_offer \${found[@]+"\${found[@]}"}
}

_rpmsg_bridge_files() {
  local line
  compopt -o filenames 2>/dev/null
  while IFS= read -r line; do
    line=$prefix$line
    COMPREPLY+=("\${line#"$kept"}")
  done < <(compgen -f -- "\${cur#"$prefix"}")
}

# Offers values: of one of the kinds that there are, or words.
_rpmsg_bridge_offer_value() {
  local -a values=()
  local value
  case $1 in
    files) _rpmsg_bridge_files ;;
    endpoints | guests) _rpmsg_bridge_live "$1" ;;
    words)
      for value in "\${@:2}"; do values+=("$prefix$value"); done
      _rpmsg_bridge_offer \${values[@]+"\${values[@]}"}
      ;;
  esac
}

_rpmsg_bridge() {
  local IFS=$' \\t\\n' cur quote='' kept='' prefix=''
  local -a words=()
  local i last=-1 word='' blank line=\${COMP_LINE:0:COMP_POINT}
  COMPREPLY=()

  # The words as the shell takes them: bash has cut them at : = and @ too.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]-}
    blank=\${line%%[![:blank:]]*}
    line=\${line#"$blank"}
    # Nothing behind the cursor.
    [[ -z \${COMP_LINE-} || $line == "$word"* ]] || word=$line
    line=\${line#"$word"}
    if [[ -z \${COMP_LINE-} || -n $blank || $i == 0 ]]; then words[++last]=$word; else words[last]+=$word; fi
  done
  cur=\${words[last]}
  # What stays as it is: all but the last piece, which readline replaces. An @ is a part of that.
  case $cur in
    *"$2") kept=\${cur%"$2"} ;;
  esac
  case $cur in
    [\\"\\']*) quote=\${cur:0:1} cur=\${cur:1} ;;
    *) cur=\${cur//\\\\/} ;;
  esac

  # Which command it is, how many arguments there are, and whether an option waits for its value.
  local path='' arguments=0 option='' commands options value
  _rpmsg_bridge_command ''
  for ((i = 1; i < last; i++)); do
    word=\${words[i]}
    if [[ -n $option ]]; then
      option=''
    elif [[ $word == -* ]]; then
      _rpmsg_bridge_value "$path" "$word" && option=$word
    elif [[ " $commands " == *" $word "* ]]; then
      path=\${path:+$path }$word
      _rpmsg_bridge_command "$path"
    else
      arguments=$((arguments + 1))
    fi
  done

  if [[ -z $option && $cur == --*=* ]]; then
    option=\${cur%%=*}
    prefix=$option=
  fi
  if [[ -n $option ]]; then
    _rpmsg_bridge_value "$path" "$option" && _rpmsg_bridge_offer_value $value
  elif [[ $cur == -* ]]; then
    _rpmsg_bridge_offer $options
  elif [[ -n $commands ]]; then
    _rpmsg_bridge_offer $commands
  elif _rpmsg_bridge_argument "$path" "$arguments"; then
    _rpmsg_bridge_offer_value $value
  else
    _rpmsg_bridge_offer $options
  fi
}

complete -F _rpmsg_bridge rpmsg-bridge
`;

/** The script for bash: tables of the commands, and what reads them. */
export function bashScript(model: CommandModel): string {
  const all = allCommands(model);
  const commands = all.map(({ path, commands: below, options }) =>
    branch(path, [
      ["commands", below.map((each) => each.name).join(" ")],
      ["options", options.flatMap((each) => each.names).join(" ")],
    ]),
  );
  const values = all.flatMap(({ path, options }) =>
    options.flatMap(({ names, value }) =>
      value === undefined
        ? []
        : names.map((name) => branch(`${path} ${name}`, [["value", valueText(value)]])),
    ),
  );
  const positions = all.flatMap((command) =>
    command.arguments.map((value, i) => branch(`${command.path} ${i}`, [["value", valueText(value)]])),
  );
  return `# Completion of rpmsg-bridge for bash: source <(rpmsg-bridge completion bash)

# What there is at a command.
${choice("command", "$1", commands)}

# What the value of an option is; fails where it has none.
${choice("value", "$1 $2", values)}

# What an argument is; fails where there is no such one.
${choice("argument", "$1 $2", positions)}
${ENGINE}`;
}

function choice(name: string, subject: string, branches: string[]): string {
  return `_rpmsg_bridge_${name}() {
  case "${subject}" in
${branches.join("\n")}
    *) return 1 ;;
  esac
}`;
}

/** Names of commands and options, and words of choices, need no quoting within quotes. */
function branch(pattern: string, variables: [string, string][]): string {
  return `    "${pattern}") ${variables.map(([name, text]) => `${name}="${text}"`).join(" ")} ;;`;
}

function valueText(value: Value): string {
  return typeof value === "string" ? value : `words ${value.join(" ")}`;
}
