import type { Endpoint, EndpointList, Guest, GuestList, Origin } from "../schemas/index.ts";
import { RpmsgError } from "./errors.ts";
import type { RequestOptions } from "./http.ts";
import { request } from "./http.ts";
import { baseOf } from "./target.ts";

/** Which endpoints are listed: those for which all that is given is equal. */
export interface ListOptions extends RequestOptions {
  guest?: string;
  name?: string;
  origin?: Origin;
}

/**
 * The endpoints of a bridge.
 * @param target URL of the bridge, or of anything on it; in a browser it may be relative to the page
 * @throws RpmsgError
 */
export async function list(target: string | URL, options: ListOptions = {}): Promise<Endpoint[]> {
  const { guest, name, origin } = options;
  return pages(target, "endpoints", { guest, name, origin }, options);
}

/** The endpoints of one guest. @throws RpmsgError guest-unknown and others */
export async function listOf(
  target: string | URL,
  guest: string,
  options: RequestOptions,
): Promise<Endpoint[]> {
  return pages(target, `guests/${guest}/endpoints`, {}, options);
}

/**
 * The guests of a bridge.
 * @throws RpmsgError
 */
export async function guests(target: string | URL, options: RequestOptions = {}): Promise<Guest[]> {
  const answer = await get<GuestList>(new URL("api/v1/guests", baseOf(target)), options);
  return array(answer.guests, (guest) => typeof guest.name === "string");
}

async function pages(
  target: string | URL,
  path: string,
  filter: Record<string, string | undefined>,
  options: RequestOptions,
): Promise<Endpoint[]> {
  const url = new URL(`api/v1/${path}`, baseOf(target));
  for (const [key, value] of Object.entries(filter)) {
    if (value !== undefined) url.searchParams.set(key, value);
  }
  const found: Endpoint[] = [];
  for (;;) {
    const { endpoints, next } = await get<EndpointList>(url, options);
    found.push(...array(endpoints, (endpoint) => typeof endpoint.id === "string"));
    if (typeof next !== "string" || next === url.searchParams.get("after")) return found;
    url.searchParams.set("after", next);
  }
}

async function get<T>(url: URL, options: RequestOptions): Promise<Partial<T>> {
  const response = await request(url, options);
  try {
    return ((await response.json()) as Partial<T> | null) ?? {};
  } catch {
    if (options.signal?.aborted === true) throw options.signal.reason;
    return {};
  }
}

function array<T>(value: T[] | undefined, check: (item: T) => boolean): T[] {
  if (Array.isArray(value) && value.every((item) => item !== null && check(item))) return value;
  throw new RpmsgError("unreachable", "what answers is no rpmsg-bridge");
}
