import { X509Certificate } from "node:crypto";
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import type { ServerOptions } from "node:https";
import type { Server } from "node:tls";
import { createSecureContext } from "node:tls";
import type { Tls } from "../../schemas/index.ts";
import { ConfigError } from "../config/config-error.ts";
import type { Log } from "../log.ts";

/** Milliseconds between two looks at the files. */
const PERIOD = 1000;

/**
 * What a server needs to speak TLS, 1.2 or newer. With `clientCa` it takes only clients that have a certificate of one
 * of those authorities.
 * @throws ConfigError that names the key
 */
export function tlsOptions(tls: Tls): ServerOptions {
  const context = readContext(tls);
  const client = tls.clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: true };
  return { ...context, ...client };
}

/**
 * Reads the files again whenever one changes. New connections have what is new, old ones stay. Files that do not fit
 * together, as while they are being replaced, change nothing.
 * @returns `reload` reads them at once; `stop` ends it
 */
export function followFiles(server: Server, tls: Tls, log: Log): { reload(): void; stop(): void } {
  const reload = (): void => {
    try {
      server.setSecureContext(readContext(tls));
      log.write("tls-reloaded", {});
    } catch (error) {
      log.write("tls-reload-failed", { reason: (error as Error).message });
    }
  };
  const files = [tls.cert, tls.key, ...(tls.clientCa === undefined ? [] : [tls.clientCa])];
  // By their times, not by events: those are of directories and links as files come to be replaced today.
  for (const file of files) watchFile(file, { interval: PERIOD, persistent: false }, reload);
  return {
    reload,
    stop: () => {
      for (const file of files) unwatchFile(file, reload);
    },
  };
}

function readContext(tls: Tls): Pick<ServerOptions, "cert" | "key" | "ca" | "minVersion"> {
  const cert = read("cert", tls.cert);
  const key = read("key", tls.key);
  const ca = tls.clientCa === undefined ? undefined : read("clientCa", tls.clientCa);
  const context = { cert, key, minVersion: "TLSv1.2" as const, ...(ca !== undefined && { ca }) };
  // One by one, so that it is known which is wrong; the last finds out whether they fit.
  check("cert", () => new X509Certificate(cert));
  if (ca !== undefined) check("clientCa", () => new X509Certificate(ca));
  check("key", () => createSecureContext(context));
  return context;
}

function read(key: keyof Tls, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new ConfigError(`tls.${key}`, `cannot read the file: ${(error as Error).message}`);
  }
}

function check(key: keyof Tls, use: () => unknown): void {
  try {
    use();
  } catch (error) {
    throw new ConfigError(`tls.${key}`, `not as it should be in PEM: ${(error as Error).message}`);
  }
}
