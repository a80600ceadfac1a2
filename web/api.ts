import { problemError, RpmsgError } from "../client/errors.ts";
import type { Access, Endpoint, EndpointDeclaration } from "../schemas/index.ts";
import { bridge, token } from "./session.ts";

/**
 * A request of the bridge's HTTP interface.
 * @param path behind the bridge's root
 * @throws RpmsgError
 */
async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token.value !== undefined) headers.set("authorization", `Bearer ${token.value}`);
  let response: Response;
  try {
    response = await fetch(new URL(path, bridge), { ...init, headers, cache: "no-store" });
  } catch (cause) {
    throw new RpmsgError("unreachable", `cannot reach the bridge at ${bridge.origin}: ${String(cause)}`, {
      cause,
    });
  }
  if (!response.ok) throw problemError(response.status, await response.text());
  return response;
}

function endpointsOf(guest: string): string {
  return `api/v1/guests/${encodeURIComponent(guest)}/endpoints`;
}

/** Declares a service of the host. */
export async function announce(guest: string, declaration: Partial<EndpointDeclaration>): Promise<Endpoint> {
  const response = await ask(endpointsOf(guest), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(declaration),
  });
  return (await response.json()) as Endpoint;
}

export async function withdraw({ guest, id }: Pick<Endpoint, "guest" | "id">): Promise<void> {
  await ask(`${endpointsOf(guest)}/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/** What the page's token may do with an endpoint, or with some endpoint of a guest. */
export async function access(place: { guest?: string; id?: string | undefined }): Promise<Access> {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(place)) if (value !== undefined) query.set(key, value);
  return (await (await ask(`api/v1/access?${query}`)).json()) as Access;
}

/** What Prometheus gets: it needs the right `admin`. */
export async function metrics(signal: AbortSignal): Promise<string> {
  return (await ask("metrics", { signal })).text();
}
