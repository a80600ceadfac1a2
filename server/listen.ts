import { rmSync } from "node:fs";
import type { Server } from "node:net";
import { isIP } from "node:net";
import type { Server as TlsServer } from "node:tls";
import type { FastifyInstance } from "fastify";
import { followFiles, tlsOptions } from "./access/tls.ts";
import { buildApp } from "./app.ts";
import type { Bridge } from "./bridge.ts";
import type { ListenAddress } from "./config/flags.ts";
import { parseListen } from "./config/flags.ts";
import { HttpDoor, listenOn } from "./hand-over/http-door.ts";
import type { Succession } from "./hand-over/successor.ts";
import { httpUrl } from "./http-url.ts";
import type { Log } from "./log.ts";

/** A bridge that can be reached. */
export interface Listener {
  readonly app: FastifyInstance;
  /** The listening socket, for a hand-over. */
  readonly door: HttpDoor;
  /** `http://127.0.0.1:8080`, with TLS `https:`, or `unix:PATH`. */
  readonly url: string;
  /** What was made for this run, where others can reach the bridge and no token is configured; nowhere else. */
  readonly made: { token: string; ticket: string } | undefined;
  /** Reads the certificate again. */
  reload(): void;
  /** Listens no more. */
  close(): Promise<void>;
}

/**
 * Starts a bridge and listens where its configuration says. Where others than this machine can reach it, and nothing is
 * said of who may, a token is made.
 * @param succession what another bridge hands over: when this returns, it has
 * @throws HandOverError,  ConfigError; SystemError or an error with a code as EADDRINUSE: it cannot listen
 */
export async function listen(bridge: Bridge, log: Log, succession?: Succession): Promise<Listener> {
  const { config, gate } = bridge;
  const address = parseListen(config.listen);
  const tls = config.tls && tlsOptions(config.tls);
  const made = gate.open && config.auth !== "none" && !isLocal(address) ? gate.close() : undefined;
  const app = buildApp(bridge, tls);
  let isAdopted = false;
  const door = new HttpDoor(app.server, "path" in address ? address.path : undefined);
  try {
    await bridge.start();
    const inherited = succession?.listener(config.listen);
    isAdopted = inherited !== undefined;
    if (inherited === undefined) await withMode(address, config.socketMode, () => app.listen(address));
    else await app.ready();
    await succession?.complete();
    // From here on everything is ours; the guests wait.
    if (succession !== undefined) bridge.resume();
    if (inherited !== undefined) await listenOn(app.server, inherited);
  } catch (error) {
    bridge.close();
    await app.close();
    throw error;
  }
  const files = config.tls && followFiles(app.server as Server as TlsServer, config.tls, log);
  const bound = app.server.address();
  const url = typeof bound === "object" && bound !== null ? httpUrl(bound, tls !== undefined) : config.listen;
  return {
    app,
    door,
    url,
    made,
    reload: () => files?.reload(),
    close: async () => {
      files?.stop();
      app.server.closeAllConnections();
      await app.close();
      // Of a socket that another process has bound Node does not remove the file.
      if (isAdopted && "path" in address) rmSync(address.path, { force: true });
    },
  };
}

/** Only programs of this machine come here. */
export function isLocal(address: ListenAddress): boolean {
  if ("path" in address) return true;
  const { host } = address;
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

/**
 * Sees to it that a socket has its mode from its first moment on, which only the process's mask can do: a change
 * afterwards would come after the first connection. Nothing else makes files meanwhile.
 */
async function withMode(
  address: ListenAddress,
  mode: string | undefined,
  action: () => Promise<unknown>,
): Promise<void> {
  const applies = mode !== undefined && "path" in address;
  const before = applies ? process.umask(0o777 & ~Number.parseInt(mode, 8)) : undefined;
  try {
    await action();
  } finally {
    if (before !== undefined) process.umask(before);
  }
}
