import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { ConfigError } from "../config/config-error.ts";
import { CommandError, exitCode } from "./command-error.ts";

const collect = (value: string, all: string[] = []): string[] => [...all, value];

const SERVE_EXAMPLES = `
Examples:
  rpmsg-bridge serve
      an emulated guest "demo" at ws://127.0.0.1:8080/ws/v1/demo/echo
  rpmsg-bridge serve --guest vm0=vhost-user:/run/rpmsg/vm0.sock --announce vm0/rpmsg-raw
      a virtual machine that connects to the socket, and a service that its Linux binds a driver to
  rpmsg-bridge serve --guest a=emulated,profile=openamp --listen 0.0.0.0:9000

A guest is NAME=KIND[:PATH][,key=value...], KIND one of:
  emulated         in this process; profile=linux|openamp|rpmsg-lite
  vhost-user:PATH  behind a Unix socket; mode=listen|connect, dialect=linux|linux-bufsz`;

const GUEST_EXAMPLES = `
Examples:
  rpmsg-bridge guest --socket /run/rpmsg/vm0.sock
      connects to: rpmsg-bridge serve --guest vm0=vhost-user:/run/rpmsg/vm0.sock
  rpmsg-bridge guest --socket /tmp/g.sock --listen --profile rpmsg-lite
      waits for: rpmsg-bridge serve --guest g=vhost-user:/tmp/g.sock,mode=connect`;

const CLIENT_NOTE = `
An endpoint is GUEST/NAME, GUEST/NAME@ADDRESS where several have the name, or GUEST/~ID (see rpmsg-bridge ls).`;

/**
 * Runs one command.
 * @returns the exit code: 0 done, 1 failed, 2 the command line or the configuration is wrong
 */
export async function runProgram(args: string[]): Promise<number> {
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
    .option("--guest <guest>", "a guest, may be repeated (default demo=emulated)", collect)
    .option("--announce <service>", "GUEST/NAME[@ADDRESS]: a service of the host, may be repeated", collect)
    .option("--no-auth", "serve without access control, which is all there is yet, without a warning")
    .addHelpText("after", SERVE_EXAMPLES)
    .action(async (flags) => (await import("./serve.ts")).serve(flags));

  program
    .command("guest")
    .description("run the emulated guest as a process of its own, behind a vhost-user socket")
    .requiredOption("--socket <path>", "Unix socket")
    .addOption(new Option("--connect", "connect, and again when it ends (default)").conflicts("listen"))
    .option("--listen", "listen for the bridge")
    .addOption(
      new Option("--profile <name>", "which implementation to behave like")
        .choices(["linux", "openamp", "rpmsg-lite"])
        .default("linux"),
    )
    .addHelpText("after", GUEST_EXAMPLES)
    .action(async (flags) => (await import("./guest.ts")).guest(flags));

  client(program, "ls", "list the endpoints of a running bridge")
    .option("--guest <name>", "only those of one guest")
    .addHelpText("after", "\nExample:\n  rpmsg-bridge ls --json | jq -r '.endpoints[].path'")
    .action(async (flags) => (await import("./ls.ts")).ls(flags));

  channel(program, "connect", "talk to an endpoint: a line typed is a message sent")
    .option("--hex", "type and show bytes as hexadecimal digits")
    .option("--raw", "every key is sent as it is typed, ctrl-] leaves (default for a tty on a terminal)")
    .option("--no-raw", "lines even for a tty")
    .addHelpText(
      "after",
      `${CLIENT_NOTE}\n\nExamples:\n  rpmsg-bridge connect demo/tty\n  echo hello | rpmsg-bridge connect demo/echo`,
    )
    .action(async (endpoint, flags) => (await import("./connect.ts")).connect(endpoint, flags));

  channel(program, "send", "send one message")
    .argument("<data>", "the message, as text or with --hex")
    .option("--hex", "the message is hexadecimal digits, and so is the reply that is shown")
    .option("--wait [seconds]", "print the first reply (default 15 seconds)", seconds)
    .addHelpText("after", `${CLIENT_NOTE}\n\nExample:\n  rpmsg-bridge send demo/echo hello --wait`)
    .action(async (endpoint, data, flags) => (await import("./send.ts")).send(endpoint, data, flags));

  try {
    await program.parseAsync(args, { from: "user" });
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

/** A command that talks to a running bridge. */
function client(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option("--url <url>", "the bridge", process.env["RPMSG_BRIDGE_URL"] ?? "http://127.0.0.1:8080")
    .option("--token <token>", "bearer token", process.env["RPMSG_BRIDGE_TOKEN"])
    .option("--json", "print JSON, for machines");
}

function channel(program: Command, name: string, description: string): Command {
  return client(program, name, description)
    .argument("<endpoint>", "GUEST/ENDPOINT")
    .option("--share <mode>", "private or shared")
    .option("--local <address>", "local address of the channel");
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 86_400)) throw new InvalidArgumentError("want a number of seconds.");
  return value;
}
