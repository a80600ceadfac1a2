import { RpmsgError } from "./errors.ts";
import type { RequestOptions } from "./http.ts";
import { listOf } from "./list.ts";
import { placeOf } from "./target.ts";

/**
 * Why a channel cannot be had: a browser does not say, so the lists are asked.
 * @param url of the channel
 */
export async function explain(url: URL, options: RequestOptions): Promise<RpmsgError> {
  const { guest, endpoint } = placeOf(url);
  try {
    const endpoints = await listOf(url, guest, options);
    const name = nameOf(endpoint ?? "");
    const known = endpoints.some(
      (each) => name === undefined || each.name === name || endpoint === `~${each.id}`,
    );
    if (endpoint !== undefined && !known) {
      return new RpmsgError("endpoint-unknown", `guest "${guest}" has no endpoint "${name}"`);
    }
  } catch (error) {
    if (error instanceof RpmsgError) return error;
  }
  return new RpmsgError(
    "refused",
    "the bridge refuses the connection: an exclusive client may be there, the local address taken, this page's origin unknown, or the token without the right",
  );
}

/** The name in a path, without the address behind it; undefined where it cannot be had. */
function nameOf(endpoint: string): string | undefined {
  try {
    return decodeURIComponent(endpoint.replace(/@[^@]*$/, ""));
  } catch {
    return undefined;
  }
}
