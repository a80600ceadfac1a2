import { parseAddress } from "../schemas/index.ts";
import type { EndpointReference } from "./directory.ts";

const MUX = "/ws/v1";
const PREFIX = `${MUX}/`;

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

/** What the path of a WebSocket means. */
export type ChannelTarget =
  | { kind: "endpoint"; guest: string; reference: EndpointReference }
  | { kind: "guest"; guest: string }
  | { kind: "mux" };

/**
 * Reads the raw path of a request. Frameworks decode paths as UTF-8 and refuse other bytes: hence by hand.
 * @returns undefined where it is not the path of a WebSocket
 */
export function parseChannelPath(path: string): ChannelTarget | undefined {
  if (path === MUX || path === PREFIX) return { kind: "mux" };
  if (!path.startsWith(PREFIX)) return undefined;
  const [guest, endpoint, ...more] = path.slice(PREFIX.length).split("/");
  if (guest === undefined || more.length > 0) return undefined;
  if (endpoint === undefined) return { kind: "guest", guest };
  const reference = parseReference(endpoint);
  return reference && { kind: "endpoint", guest, reference };
}

function parseReference(endpoint: string): EndpointReference | undefined {
  if (endpoint === "") return undefined;
  if (endpoint.startsWith("~")) return { id: endpoint.slice(1) };
  const at = endpoint.lastIndexOf("@");
  const name = decodeBytes(at === -1 ? endpoint : endpoint.slice(0, at));
  if (name === undefined) return undefined;
  if (at === -1) return { name };
  const address = parseAddress(endpoint.slice(at + 1));
  return address === undefined ? undefined : { name, address };
}

function percent(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}

/** Percent-decodes to one character a byte; characters beyond ASCII count as their UTF-8 bytes. */
export function decodeBytes(text: string): string | undefined {
  if (/%(?![0-9a-fA-F]{2})/.test(text)) return undefined;
  return Buffer.from(text)
    .toString("latin1")
    .replaceAll(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
