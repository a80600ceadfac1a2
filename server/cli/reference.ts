import type { Endpoint } from "../../schemas/index.ts";
import { parseAddress } from "../../schemas/index.ts";
import { endpointPath, parseChannelPath } from "../endpoint-path.ts";
import { CommandError, exitCode } from "./command-error.ts";
import { printable } from "./terminal.ts";

/** GUEST/NAME, GUEST/NAME@ADDRESS or GUEST/~ID. */
export interface Reference {
  guest: string;
  id?: string;
  name?: string;
  address?: number;
}

/**
 * Reads what people write for an endpoint.
 * @throws CommandError
 */
export function parseReference(text: string): Reference {
  const slash = text.indexOf("/");
  const guest = text.slice(0, slash);
  const endpoint = text.slice(slash + 1);
  if (slash < 1 || endpoint === "") {
    throw new CommandError(`want GUEST/ENDPOINT, not "${text}"`, exitCode.usage);
  }
  if (endpoint.startsWith("~")) return { guest, id: endpoint.slice(1) };
  const at = endpoint.lastIndexOf("@");
  const address = at === -1 ? undefined : parseAddress(endpoint.slice(at + 1));
  return address === undefined ? { guest, name: endpoint } : { guest, name: endpoint.slice(0, at), address };
}

/** The path at which it can be connected to. */
export function channelPath({ guest, id, name = "", address }: Reference): string {
  const path = encodeURIComponent(guest);
  if (id !== undefined) return endpointPath(path, { id: encodeURIComponent(id) });
  const bytes = Buffer.from(name).toString("latin1");
  return endpointPath(path, address === undefined ? { name: bytes } : { name: bytes, address });
}

/** What to write for a listed endpoint: its name where that can be typed, else its id. */
export function referenceOf({ guest, id, path }: Pick<Endpoint, "guest" | "id" | "path">): string {
  const target = parseChannelPath(path);
  const reference = target?.kind === "endpoint" ? target.reference : undefined;
  const bytes = reference?.name;
  const address = reference?.address;
  const name = Buffer.from(bytes ?? "", "latin1").toString();
  const text = `${guest}/${name}${address === undefined ? "" : `@${address}`}`;
  const read: Partial<Reference> = text.endsWith("/") ? {} : parseReference(text);
  const typeable = printable(name) === name && !name.includes("\u{fffd}");
  return bytes !== undefined && read.name === name && typeable ? text : `${guest}/~${id}`;
}
