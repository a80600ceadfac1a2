import { parseAddress } from "../schemas/index.ts";
import type { EndpointReference } from "./directory.ts";

const PREFIX = "/ws/v1/";

/** All but the characters that stand for themselves in a path (RFC 3986, 2.3) and mean nothing to us. */
const SPECIAL = /[^A-Za-z0-9._-]/g;

/**
 * The path of an endpoint: `/ws/v1/{guest}/{name}`, `{name}@{address}` or `~{id}`. The name's bytes are
 * percent-encoded one by one, so that names of any bytes can be reached; `@` and `~` in names are encoded too.
 */
export function endpointPath(guest: string, reference: EndpointReference): string {
  const base = `${PREFIX}${guest}/`;
  if (reference.id !== undefined) return `${base}~${reference.id}`;
  const name = (reference.name ?? "").replaceAll(SPECIAL, percent);
  return reference.address === undefined ? base + name : `${base}${name}@${reference.address}`;
}

/**
 * Reads the raw path of a request. Frameworks decode paths as UTF-8 and refuse other bytes: hence by hand.
 * @returns undefined where it is not the path of an endpoint
 */
export function parseEndpointPath(path: string): { guest: string; reference: EndpointReference } | undefined {
  if (!path.startsWith(PREFIX)) return undefined;
  const [guest, endpoint, ...more] = path.slice(PREFIX.length).split("/");
  if (guest === undefined || endpoint === undefined || endpoint === "" || more.length > 0) return undefined;
  if (endpoint.startsWith("~")) return { guest, reference: { id: endpoint.slice(1) } };
  const at = endpoint.lastIndexOf("@");
  const name = decodeBytes(at === -1 ? endpoint : endpoint.slice(0, at));
  if (name === undefined) return undefined;
  if (at === -1) return { guest, reference: { name } };
  const address = parseAddress(endpoint.slice(at + 1));
  return address === undefined ? undefined : { guest, reference: { name, address } };
}

function percent(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}

/** Percent-decodes to one character a byte; characters beyond ASCII count as their UTF-8 bytes. */
function decodeBytes(text: string): string | undefined {
  if (/%(?![0-9a-fA-F]{2})/.test(text)) return undefined;
  return Buffer.from(text)
    .toString("latin1")
    .replaceAll(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
