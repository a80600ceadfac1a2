import type { ZodType, z } from "zod";
import type { Endpoint } from "../../schemas/index.ts";
import { EndpointList, Guest } from "../../schemas/index.ts";
import { explain } from "./advice.ts";
import { CommandError, exitCode } from "./command-error.ts";

/** Flags of all commands that talk to a running bridge. */
export interface ClientFlags {
  url: string;
  token?: string;
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
  const url = new URL(path, base(flags));
  let response: Response;
  let body: string;
  try {
    response = await fetch(url, { headers: authorization(flags) });
    body = await response.text();
  } catch (error) {
    throw unreachable(flags, ((error as Error).cause ?? error) as Error);
  }
  if (!response.ok) throw new CommandError(problemText(response.status, body, flags));
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
