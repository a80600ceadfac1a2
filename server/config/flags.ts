import { GuestName, parseAddress } from "../../schemas/index.ts";
import { ConfigError } from "./config-error.ts";

/**
 * Reads `NAME=KIND[:PATH][,key=value...]`.
 * @returns the guest as the configuration file would have it, not checked yet
 * @throws ConfigError
 */
export function parseGuestFlag(text: string): { name: string; guest: Record<string, unknown> } {
  const [head = "", ...settings] = text.split(",");
  const [, name, kind, path] = /^([^=]+)=([^:]+)(?::(.*))?$/.exec(head) ?? [];
  if (name === undefined || kind === undefined) {
    throw new ConfigError("--guest", `want NAME=KIND[:PATH][,key=value...], not "${text}"`);
  }
  if (!GuestName.safeParse(name).success)
    throw new ConfigError("--guest", `"${name}" cannot be a guest's name`);
  const guest: Record<string, unknown> = { kind };
  if (path !== undefined) guest["path"] = path;
  for (const setting of settings) {
    const [, key, value] = /^([^=]+)=(.*)$/.exec(setting) ?? [];
    if (key === undefined) throw new ConfigError("--guest", `want key=value after a comma, not "${setting}"`);
    guest[key] = value;
  }
  return { name, guest };
}

/**
 * Reads `GUEST/NAME[@ADDRESS]`.
 * @throws ConfigError
 */
export function parseAnnounceFlag(text: string): {
  guest: string;
  announcement: { name: string; address?: number };
} {
  const slash = text.indexOf("/");
  if (slash < 1) throw new ConfigError("--announce", `want GUEST/NAME[@ADDRESS], not "${text}"`);
  const guest = text.slice(0, slash);
  const rest = text.slice(slash + 1);
  const at = rest.lastIndexOf("@");
  if (at === -1) return { guest, announcement: { name: rest } };
  const address = parseAddress(rest.slice(at + 1));
  if (address === undefined) throw new ConfigError("--announce", `"${rest.slice(at + 1)}" is not an address`);
  return { guest, announcement: { name: rest.slice(0, at), address } };
}

/** Where to listen. */
export type ListenAddress = { host: string; port: number } | { path: string };

/**
 * Reads `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
 * @throws ConfigError
 */
export function parseListen(text: string): ListenAddress {
  if (text.startsWith("unix:") && text.length > 5) return { path: text.slice(5) };
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || Number(port) > 65_535) {
    throw new ConfigError("listen", `want HOST:PORT or unix:PATH, not "${text}"`);
  }
  return { host, port: Number(port) };
}
