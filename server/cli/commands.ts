import { Argument, Command, InvalidArgumentError, Option } from "commander";
import type { GuestConfig, Origin, Share, SlowPolicy } from "../../schemas/index.ts";
import { DEFAULT_URL } from "./bridge-url.ts";

/** The words of an enumeration; here without loading the schemas, which takes longer than all else. */
const words = <Word extends string>(all: Record<Word, true>): Word[] => Object.keys(all) as Word[];

type Profile = NonNullable<Extract<GuestConfig, { kind: "emulated" }>["profile"]>;

const profiles = words<Profile>({ linux: true, openamp: true, "rpmsg-lite": true });
const shares = words<Share>({ private: true, shared: true, exclusive: true });
const slowPolicies = words<SlowPolicy>({
  close: true,
  pause: true,
  "drop-oldest": true,
  "drop-newest": true,
});
const origins = words<Origin>({ guest: true, host: true });

const SERVE_EXAMPLES = `
Examples:
  rpmsg-bridge serve
      an emulated guest "demo" at ws://127.0.0.1:8080/ws/v1/demo/echo
  rpmsg-bridge serve --guest vm0=vhost-user:/run/rpmsg/vm0.sock --announce vm0/rpmsg-raw
      a virtual machine that connects to the socket, and a service that its Linux binds a driver to
  rpmsg-bridge serve --guest a=emulated,profile=openamp --listen 0.0.0.0:9000

A guest is NAME=KIND[:PATH][,key=value...], KIND one of:
  emulated[:FILE]  in this process, with the services that FILE exports; profile=linux|openamp|rpmsg-lite
  vhost-user:PATH  behind a Unix socket; mode=listen|connect, dialect=linux|linux-bufsz, isolation=none|process,
                   poll=off|adaptive`;

const TOKEN_EXAMPLES = `
Clients show it: RPMSG_BRIDGE_TOKEN=rpmsg_... rpmsg-bridge ls

Examples:
  rpmsg-bridge token --name panel >> bridge.yaml
  rpmsg-bridge token --name prometheus --another >> bridge.yaml`;

const GUEST_EXAMPLES = `
Examples:
  rpmsg-bridge guest --socket /run/rpmsg/vm0.sock
      connects to: rpmsg-bridge serve --guest vm0=vhost-user:/run/rpmsg/vm0.sock
  rpmsg-bridge guest --socket /tmp/g.sock --listen --profile rpmsg-lite
      waits for: rpmsg-bridge serve --guest g=vhost-user:/tmp/g.sock,mode=connect`;

const CLIENT_NOTE = `
An endpoint is GUEST/NAME, GUEST/NAME@ADDRESS where several have the name, or GUEST/~ID (see rpmsg-bridge ls).`;

const CONNECT_EXAMPLES = `${CLIENT_NOTE}

On a terminal, an endpoint whose name ends in "tty" gets every key as it is pressed; ctrl-] leaves.
With --json a line of input is {"data": "hello"}, with encoding (utf8, base64, hex), dst, timeout (ms) and id as needed.

Examples:
  rpmsg-bridge connect demo/tty
  echo hello | rpmsg-bridge connect demo/echo
  echo '{"id": 1, "data": "hello"}' | rpmsg-bridge connect demo/echo --json`;

const SEND_EXAMPLES = `${CLIENT_NOTE}

Exits with 0 when the message is in the guest's response queue, else with 1 and the reason.

Examples:
  rpmsg-bridge send demo/echo hello --wait
  rpmsg-bridge send demo/sink - < message.bin`;

const WATCH_NOTE = `
First everything as it is, then "ready", then changes. Ctrl-c ends it with 0; when the bridge ends, it does with 1.

Examples:
  rpmsg-bridge watch
  rpmsg-bridge watch --json | jq --unbuffered -r 'select(.event == "guest") | .data.state'`;

const CAPTURE_EXAMPLES = `${CLIENT_NOTE}

Every message of the guests' rings, with name service and what the bridge drops. Ctrl-c ends it with 0.

Examples:
  rpmsg-bridge capture --guest vm0 -w vm0.pcapng
  rpmsg-bridge capture -w trace.pcapng --file-size 10000000 --files 5
  rpmsg-bridge capture -w - | wireshark -X lua_script:docs/wireshark/rpmsg.lua -k -i -`;

const DUMP_EXAMPLES = `${CLIENT_NOTE}

Examples:
  rpmsg-bridge dump --endpoint demo/tty
  rpmsg-bridge dump --read trace.pcapng`;

const REPLAY_EXAMPLES = `
With --to, what clients had sent goes to the endpoints of the same names. With --socket, an emulated guest announces the
endpoints of the captured one and sends what it had sent; serve --guest demo=emulated:FILE.pcapng does so in its process.

Examples:
  rpmsg-bridge replay trace.pcapng --to demo
  rpmsg-bridge replay trace.pcapng --socket /run/rpmsg/vm0.sock --fast`;

const COMPLETION_EXAMPLES = `
Examples:
  source <(rpmsg-bridge completion bash)        in ~/.bashrc
  rpmsg-bridge completion zsh > "\${fpath[1]}/_rpmsg-bridge"`;

/**
 * All commands. What an argument or a value of an option is called also says how a shell completes it: <endpoint> and
 * <guest> from the running bridge, <file> and <path> from the file system.
 */
export function buildProgram(): Command {
  const program = new Command("rpmsg-bridge")
    .description("Puts RPMsg endpoints on the network: every endpoint of a guest is a WebSocket route.")
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError("(--help tells more)")
    .addHelpText("after", "\nStart with `rpmsg-bridge serve`, then `rpmsg-bridge ls` in another terminal.");

  program
    .command("serve")
    .description("run the bridge")
    .option("--config <file>", "configuration file (YAML)")
    .option("--listen <where>", "HOST:PORT or unix:PATH; port 0 picks one (default 127.0.0.1:8080)")
    .option("--guest <definition>", "a guest, may be repeated (default demo=emulated)", collect)
    .option("--announce <service>", "GUEST/NAME[@ADDRESS]: a service of the host, may be repeated", collect)
    .option("--handover <path>", "Unix socket on which a successor takes over")
    .option(
      "--successor-of <path>",
      "takes everything over from the running bridge with this --handover socket",
    )
    .option("--no-auth", "let everybody in, whoever can reach the address")
    .option("--read-only", "send nothing to guests, and declare nothing")
    .addHelpText("after", SERVE_EXAMPLES)
    .action(async (flags) => (await import("./serve.ts")).serve(flags));

  program
    .command("token")
    .description("make a token, and the lines that the configuration has of it")
    .option("--name <name>", "what it is called in the configuration", "client")
    .option("--another", "without the line tokens:, for a file that ends with a token")
    .option("--json", "print JSON, for machines")
    .addHelpText("after", TOKEN_EXAMPLES)
    .action(async (flags) => (await import("./token.ts")).token(flags));

  program
    .command("guest")
    .description("run the emulated guest as a process of its own, behind a vhost-user socket")
    .requiredOption("--socket <path>", "Unix socket")
    .addOption(new Option("--connect", "connect, and again when it ends (default)").conflicts("listen"))
    .option("--listen", "listen for the bridge")
    .addOption(
      new Option("--profile <name>", "which implementation to behave like")
        .choices(profiles)
        .default("linux"),
    )
    .addHelpText("after", GUEST_EXAMPLES)
    .action(async (flags) => (await import("./guest.ts")).guest(flags));

  client(program, "ls", "list the endpoints of a running bridge")
    .option("--guest <guest>", "only those of one guest")
    .addHelpText("after", "\nExample:\n  rpmsg-bridge ls --json | jq -r '.endpoints[].path'")
    .action(async (flags) => (await import("./ls.ts")).ls(flags));

  client(program, "guests", "list the guests of a running bridge")
    .addHelpText(
      "after",
      "\nExample:\n  rpmsg-bridge guests --json | jq -r '.guests[] | .name + \" \" + .state'",
    )
    .action(async (flags) => (await import("./guests.ts")).guests(flags));

  client(program, "info", "show all about an endpoint and its guest, or about a guest")
    .argument("<endpoint>", "GUEST/ENDPOINT, or GUEST")
    .addOption(originOption())
    .addHelpText("after", `${CLIENT_NOTE}\n\nExample:\n  rpmsg-bridge info demo/echo`)
    .action(async (endpoint, flags) => (await import("./info.ts")).info(endpoint, flags));

  client(program, "watch", "show guests and endpoints, and every change of them")
    .option("--guest <guest>", "only one guest and its endpoints")
    .addHelpText("after", WATCH_NOTE)
    .action(async (flags) => (await import("./watch.ts")).watch(flags));

  channel(program, "connect", "talk to an endpoint: a line typed is a message sent", {
    json: "frames as JSON, one a line, both ways",
  })
    .option("--hex", "type and show bytes as hexadecimal digits")
    .option("--raw", "send every key as it is pressed, ctrl-] leaves (default for a tty on a terminal)")
    .option("--no-raw", "lines even for a tty")
    .addOption(
      new Option("--takeover", "end the endpoint's other clients; this one is exclusive").implies({
        share: "exclusive" satisfies Share,
      }),
    )
    .addOption(
      new Option("--slow <policy>", "what happens when messages come faster than they are read").choices(
        slowPolicies,
      ),
    )
    .addHelpText("after", CONNECT_EXAMPLES)
    .action(async (endpoint, flags) => (await import("./connect.ts")).connect(endpoint, flags));

  channel(program, "send", "send one message, and say what became of it")
    .argument("<data>", "the message, as text or with --hex; - for standard input")
    .option("--hex", "the message is hexadecimal digits, and so is the reply that is shown")
    .option("--wait [seconds]", "print the first reply (default 15 seconds)", seconds)
    .option("--timeout <seconds>", "how long the message may wait for the guest (default 15)", seconds)
    .option("--dst <address>", "where it goes, instead of to the endpoint's peer")
    .addHelpText("after", SEND_EXAMPLES)
    .action(async (endpoint, data, flags) => (await import("./send.ts")).send(endpoint, data, flags));

  client(program, "capture", "write every message to a file that Wireshark reads")
    .requiredOption("-w, --write <file>", "the file (pcapng); - for standard output")
    .option("--guest <guest>", "only one guest")
    .option("--endpoint <endpoint>", "only one endpoint")
    .option("--count <number>", "end after so many messages", wholeNumber)
    .option("--file-size <bytes>", "begin the next file, NAME-00001, after so many bytes", wholeNumber)
    .option("--files <number>", "keep the last so many files", wholeNumber)
    .addOption(
      new Option(
        "--on-full <action>",
        "where the disk is full: end, or leave out messages until there is room",
      )
        .choices(["stop", "drop"])
        .default("stop"),
    )
    .addHelpText("after", CAPTURE_EXAMPLES)
    .action(async (flags) => (await import("./capture.ts")).capture(flags));

  client(program, "dump", "print every message, in hexadecimal digits and as text")
    .option("--guest <guest>", "only one guest")
    .option("--endpoint <endpoint>", "only one endpoint")
    .option("--count <number>", "end after so many messages", wholeNumber)
    .option("--read <file>", "those of a file that capture wrote; - for standard input")
    .addHelpText("after", DUMP_EXAMPLES)
    .action(async (flags) => (await import("./dump.ts")).dump(flags));

  client(program, "replay", "send once more what a capture has")
    .argument("<file>", "what capture wrote")
    .addOption(
      new Option("--to <guest>", "what clients had sent, to this guest").conflicts(["socket", "listen"]),
    )
    .option("--socket <path>", "what the guest had sent, from an emulated guest behind this Unix socket")
    .option("--listen", "with --socket: listen for the bridge")
    .option("--from <name>", "the guest of the capture, where it has several")
    .option("--fast", "as fast as it is taken, not in the capture's time")
    .addHelpText("after", REPLAY_EXAMPLES)
    .action(async (file, flags) => (await import("./replay.ts")).replay(file, flags));

  program
    .command("doctor")
    .description("check this machine, and say what to fix")
    .option("--json", "print JSON, for machines")
    .addHelpText("after", "\nExits with 1 where something does not work.\n\nExample:\n  rpmsg-bridge doctor")
    .action(async (flags) => (await import("./doctor.ts")).doctor(flags));

  const config = program
    .command("config")
    .description("check a configuration file, or print an example")
    .addHelpText(
      "after",
      "\nExamples:\n  rpmsg-bridge config example > bridge.yaml\n  rpmsg-bridge config check bridge.yaml",
    );
  config
    .command("check")
    .description("say whether a configuration file is right, and which key is not")
    .argument("<file>", "configuration file (YAML)")
    .option("--json", "print JSON, for machines")
    .addHelpText(
      "after",
      "\nExample:\n  rpmsg-bridge config check bridge.yaml && rpmsg-bridge serve --config bridge.yaml",
    )
    .action(async (file, flags) => (await import("./config.ts")).checkConfig(file, flags));
  config
    .command("example")
    .description("print a configuration file with every key, its meaning and its default")
    .addHelpText("after", "\nExample:\n  rpmsg-bridge config example > bridge.yaml")
    .action(async () => (await import("./config.ts")).printExample());

  program
    .command("completion")
    .description("print what makes a shell complete commands, options and endpoints")
    .addArgument(new Argument("<shell>", "which shell").choices(["bash", "zsh"]))
    .addHelpText("after", COMPLETION_EXAMPLES)
    .action(async (shell) => (await import("./completion.ts")).printCompletion(program, shell));

  // What the scripts of `completion` call.
  client(program, "complete", "", { hidden: true })
    .addArgument(new Argument("<what>").choices(["endpoints", "guests"]))
    .action(async (what, flags) => (await import("./complete.ts")).complete(what, flags));

  return program;
}

interface ClientOptions {
  /** What --json does. */
  json?: string;
  hidden?: boolean;
}

/** A command that talks to a running bridge. */
function client(
  program: Command,
  name: string,
  description: string,
  { json = "print JSON, for machines", hidden = false }: ClientOptions = {},
): Command {
  return (
    program
      .command(name, { hidden })
      .description(description)
      .addOption(new Option("--url <url>", "the bridge").default(DEFAULT_URL).env("RPMSG_BRIDGE_URL"))
      // Not as a default, which help would show.
      .addOption(new Option("--token <token>", "bearer token").env("RPMSG_BRIDGE_TOKEN"))
      .addOption(
        new Option("--ca <file>", "authority of the bridge's certificate (PEM)").env("RPMSG_BRIDGE_CA"),
      )
      .option("--cert <file>", "certificate to show to the bridge (PEM)")
      .option("--key <file>", "its key (PEM)")
      .option("--json", json)
  );
}

function channel(program: Command, name: string, description: string, options?: ClientOptions): Command {
  return client(program, name, description, options)
    .argument("<endpoint>", "GUEST/ENDPOINT")
    .addOption(new Option("--share <mode>", "with whom the endpoint is shared").choices(shares))
    .option("--local <address>", "local address of the channel")
    .addOption(originOption());
}

function originOption(): Option {
  return new Option("--origin <side>", "which of two endpoints of one name").choices(origins);
}

function collect(value: string, all: string[] = []): string[] {
  return [...all, value];
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError("want a whole number, 1 or more.");
  return value;
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 86_400)) throw new InvalidArgumentError("want a number of seconds.");
  return value;
}
