import { existsSync, lstatSync, unlinkSync } from "node:fs";
import { connect, isIP } from "node:net";
import { pino } from "pino";
import { buildApp } from "../app.ts";
import { Bridge } from "../bridge.ts";
import { parseListen } from "../config/flags.ts";
import type { ServeFlags } from "../config/load-config.ts";
import { loadConfig } from "../config/load-config.ts";
import { httpUrl } from "../http-url.ts";
import { ServiceManager } from "../service-manager.ts";
import { CommandError } from "./command-error.ts";
import { stopSignal } from "./signals.ts";

/** Runs the bridge until it is told to stop. One JSON line on standard output says when it is ready. */
export async function serve(flags: ServeFlags & { auth: boolean }): Promise<void> {
  const config = loadConfig(flags, process.env);
  const address = parseListen(config.listen);
  // Standard output belongs to the line that says "listening".
  const log = pino({ level: config.logLevel, base: null }, pino.destination(2));
  const stopped = stopSignal();
  const manager = await ServiceManager.of(process.env, log);
  const bridge = new Bridge(config, log);
  const app = buildApp(bridge);
  try {
    await bridge.start();
    if ("path" in address) await removeStaleSocket(address.path);
    await app.listen(address);
  } catch (error) {
    bridge.close();
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined || !/^E(?!RR_)[A-Z_]+$/.test(code)) throw error;
    throw new CommandError(`cannot listen on ${config.listen}: ${code}`);
  }
  const bound = app.server.address();
  const url = typeof bound === "object" && bound !== null ? httpUrl(bound) : config.listen;
  if (flags.auth && "host" in address && !isLoopback(address.host)) {
    log.warn({ event: "no-access-control", listen: config.listen });
  }
  process.stdout.write(`${JSON.stringify({ event: "listening", url })}\n`);
  manager.ready(url);

  const signal = await stopped;
  log.info({ event: "stopping", signal });
  manager.stopping();
  await bridge.drain();
  await app.close();
  manager.close();
  log.info({ event: "stopped" });
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

/** A socket that nobody listens on any more is in the way of the next start. */
async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path) || !lstatSync(path).isSocket()) return;
  const live = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.on("error", () => resolve(false));
  });
  if (!live) unlinkSync(path);
}
