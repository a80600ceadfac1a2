import { readFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import type { ZodType, z } from "zod";
import type { Endpoint } from "../../schemas/index.ts";
import { EndpointList, Guest } from "../../schemas/index.ts";
import { explain } from "./advice.ts";
import { CommandError, exitCode } from "./command-error.ts";

/** Flags of all commands that talk to a running bridge. */
export interface ClientFlags {
  url: string;
  token?: string;
  /** Files in PEM: the authority of the bridge's certificate, and a certificate of one's own with its key. */
  ca?: string;
  cert?: string;
  key?: string;
  json?: boolean;
}

/**
 * Asks the bridge for a resource.
 * @throws CommandError where it cannot be reached, refuses, or answers what is none
 */
export async function get<T extends ZodType>(
  path: string,
  schema: T,
  flags: ClientFlags,
): Promise<z.output<T>> {
  const response = await ask(path, flags);
  let body: string;
  try {
    body = await textOf(response);
  } catch (error) {
    throw unreachable(flags, error as Error);
  }
  const { statusCode = 0 } = response;
  if (statusCode !== 200) throw new CommandError(problemText(statusCode, body, flags));
  const checked = schema.safeParse(parseJson(body));
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  throw incomprehensible(flags, `${path}: ${[...(issue?.path ?? []), issue?.message].join(": ")}`);
}

export function getGuest(name: string, flags: ClientFlags): Promise<Guest> {
  return get(`/api/v1/guests/${encodeURIComponent(name)}`, Guest, flags);
}

/** Lists endpoints, all pages. */
export async function listEndpoints(
  flags: ClientFlags,
  filter: { guest?: string | undefined; name?: string | undefined } = {},
): Promise<Endpoint[]> {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(filter)) if (value !== undefined) query.set(key, value);
  const endpoints: Endpoint[] = [];
  for (;;) {
    const page = await get(`/api/v1/endpoints?${query.toString()}`, EndpointList, flags);
    for (const endpoint of page.endpoints) endpoints.push(endpoint);
    if (page.next === null) return endpoints;
    query.set("after", page.next);
  }
}

/**
 * Asks the bridge. Not with fetch, which takes no authority of certificates, and gives up a stream on which nothing comes
 * for five minutes.
 * @throws CommandError where it cannot be reached
 */
export async function ask(
  path: string,
  flags: ClientFlags,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
): Promise<IncomingMessage> {
  const url = new URL(path, base(flags));
  const options = {
    headers: { ...authorization(flags), ...headers },
    // A stream has a connection of its own: after its end nobody is there to answer on it.
    ...(signal && { signal, agent: false }),
    ...tlsOf(flags),
  };
  return new Promise<IncomingMessage>((resolve, reject) => {
    (url.protocol === "https:" ? requestHttps : requestHttp)(url, options)
      .once("response", resolve)
      .once("error", (error) => reject(unreachable(flags, error)))
      .once("socket", (socket) => socket.setKeepAlive(true, 30_000))
      .end();
  });
}

/** The body of an answer, as text. */
export async function textOf(response: IncomingMessage): Promise<string> {
  response.setEncoding("utf8");
  let body = "";
  for await (const part of response as AsyncIterable<string>) body += part;
  return body;
}

/**
 * The files that `--ca`, `--cert` and `--key` name.
 * @throws CommandError
 */
export function tlsOf({ ca, cert, key }: ClientFlags): { ca?: Buffer; cert?: Buffer; key?: Buffer } {
  return {
    ...(ca !== undefined && { ca: read("--ca", ca) }),
    ...(cert !== undefined && { cert: read("--cert", cert) }),
    ...(key !== undefined && { key: read("--key", key) }),
  };
}

function read(flag: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new CommandError(`${flag}: cannot read the file: ${(error as Error).message}`, exitCode.usage);
  }
}

/** @throws CommandError where it is none */
export function base({ url }: ClientFlags): URL {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new CommandError(`--url: want http://HOST:PORT, not "${url}"`, exitCode.usage);
  }
  return new URL(url);
}

export function authorization({ token }: ClientFlags): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

/** Why a request failed: nobody answers, or what answers is no bridge. */
export function unreachable(flags: ClientFlags, error: Error & { code?: string }): CommandError {
  const { code, message } = error;
  if (code !== undefined && /CERT|ISSUER|SIGNATURE/.test(code)) {
    return new CommandError(
      `the certificate of ${flags.url} is not trusted: ${message} (${code}). Name its authority with --ca.`,
    );
  }
  if (code === undefined || !/^E[A-Z]+$/.test(code)) return incomprehensible(flags, message);
  return new CommandError(
    `cannot reach the bridge at ${flags.url}: ${code}. Start one with rpmsg-bridge serve, or say where it is with --url.`,
  );
}

/** What answers is something else, or speaks another version of the protocol. */
export function incomprehensible({ url }: ClientFlags, what: string): CommandError {
  return new CommandError(
    `what answers at ${url} is no rpmsg-bridge, or one of another version than this command line (${what})`,
  );
}

/** An answer that is an error, in the bridge's own words. */
export function problemText(status: number, body: string, flags: ClientFlags): string {
  const problem = parseJson(body) as { detail?: unknown; code?: unknown } | undefined | null;
  if (typeof problem?.detail === "string" && typeof problem.code === "string") {
    return explain(problem.detail, problem.code);
  }
  return incomprehensible(flags, `status ${status}`).message;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
