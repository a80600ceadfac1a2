import { existsSync, lstatSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import type { DestinationStream } from "pino";
import { pino } from "pino";
import { Bridge } from "../bridge.ts";
import { parseListen } from "../config/flags.ts";
import type { ServeFlags } from "../config/load-config.ts";
import { loadConfig } from "../config/load-config.ts";
import { FreeMemory } from "../guests/free-memory.ts";
import type { Estate } from "../hand-over/predecessor.ts";
import { Predecessor } from "../hand-over/predecessor.ts";
import { HandOverError, Succession } from "../hand-over/successor.ts";
import type { Listener } from "../listen.ts";
import { isLocal, listen } from "../listen.ts";
import { Log } from "../log.ts";
import { ServiceManager } from "../service-manager.ts";
import { nearUrl } from "./bridge-url.ts";
import { CommandError } from "./command-error.ts";
import { HangUp } from "./hang-up.ts";
import { stopSignal } from "./signals.ts";

/** Runs the bridge until it is told to stop. One JSON line on standard output says when it is ready. */
export async function serve(flags: ServeFlags & { successorOf?: string }): Promise<void> {
  const config = await loadConfig(flags, process.env);
  const address = parseListen(config.listen);
  // Standard output belongs to the line that says "listening".
  const logger = pino({ level: config.logLevel, base: null }, await logDestination());
  const log = new Log(logger);
  const stopped = stopSignal();
  const hangUp = new HangUp();
  const manager = await ServiceManager.of(process.env, log);
  const succession = flags.successorOf === undefined ? undefined : await succeed(flags.successorOf);
  const bridge = new Bridge(config, logger, new Map(), succession);
  let listener: Listener;
  try {
    if ("path" in address && succession?.listens(config.listen) !== true)
      await removeStaleSocket(address.path);
    listener = await listen(bridge, log, succession);
  } catch (error) {
    succession?.giveUp();
    if (error instanceof HandOverError) throw new CommandError(error.message);
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined || !/^E(?!RR_)[A-Z_]+$/.test(code)) throw error;
    throw new CommandError(`cannot listen on ${config.listen}: ${code}`);
  }
  const { url, made } = listener;
  const reachable = !isLocal(address) || config.trustedProxies.length > 0;
  if (bridge.gate.open && reachable) log.write("no-access-control", { listen: config.listen });
  if (made !== undefined) process.stderr.write(welcome(url, made));
  hangUp.listen(() => listener.reload());
  const { handover } = config;
  const predecessor =
    handover === undefined
      ? undefined
      : offer({ bridge, door: listener.door, log, path: handover }, succession !== undefined);
  process.stdout.write(`${JSON.stringify({ event: "listening", url })}\n`);
  manager.ready(url);
  const memory = new FreeMemory();
  memory.start();
  if (process.stderr.isTTY) {
    const { welcomeText } = await import("./welcome.ts");
    const { endpoints } = bridge.directory.list();
    const asksForToken = !bridge.gate.open;
    process.stderr.write(welcomeText({ url, guests: bridge.guests(), endpoints, asksForToken }));
  }

  const signal = await stopped;
  log.write("stopping", { signal });
  manager.stopping();
  await predecessor?.close();
  await bridge.drain();
  await listener.close();
  memory.close();
  manager.close();
  log.write("stopped", {});
}

/** JSON for machines; on a terminal the same lines for people. */
async function logDestination(): Promise<DestinationStream> {
  if (!process.stderr.isTTY) return pino.destination(2);
  // Nobody sees what is written after the terminal was closed.
  process.stderr.on("error", () => {});
  const { logLine } = await import("./log-lines.ts");
  return { write: (line) => void process.stderr.write(logLine(line)) };
}

/** Everything of the running bridge, or why it keeps it. */
async function succeed(path: string): Promise<Succession> {
  try {
    return await Succession.begin(path);
  } catch (error) {
    throw error instanceof HandOverError ? new CommandError(error.message) : error;
  }
}

/** Offers the bridge to a successor. */
function offer(estate: Omit<Estate, "onGone">, isSuccessor: boolean): Predecessor | undefined {
  try {
    // Nothing is closed: the sockets, and the files that name them, are the successor's, too.
    return new Predecessor({ ...estate, onGone: () => process.exit(0) });
  } catch (error) {
    const { message } = error as Error;
    if (!isSuccessor) throw new CommandError(`handover: ${message}`);
    // What it has taken over is worth more.
    estate.log.write("hand-over-unavailable", { reason: message });
    return undefined;
  }
}

/** For people, once: the only place where a token is shown, and a ticket. */
function welcome(url: string, { token, ticket }: { token: string; ticket: string }): string {
  return [
    "",
    "  Others can reach this bridge, and no tokens are configured. This one was made for this run:",
    `    ${token}`,
    "  A browser needs no token at this address, which opens once, within 15 minutes:",
    `    ${nearUrl(url)}/#ticket=${ticket}`,
    "",
    "",
  ].join("\n");
}

/** A socket that nobody listens on any more is in the way of the next start. */
async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path) || !lstatSync(path).isSocket()) return;
  const live = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    // One that is too busy to take a connection is there, too.
    probe.on("error", ({ code }: NodeJS.ErrnoException) => resolve(code !== "ECONNREFUSED"));
  });
  if (!live) unlinkSync(path);
}
