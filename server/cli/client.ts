import type { IncomingMessage } from "node:http";
import { WebSocket } from "ws";
import type { Endpoint } from "../../schemas/index.ts";
import { EndpointList, Problem, parseAddress } from "../../schemas/index.ts";
import { endpointPath } from "../endpoint-path.ts";
import { CommandError, exitCode } from "./command-error.ts";

/** Flags of all commands that talk to a running bridge. */
export interface ClientFlags {
  url: string;
  token?: string;
  json?: boolean;
}

export interface ChannelFlags extends ClientFlags {
  share?: string;
  local?: string;
}

/** Lists endpoints. */
export async function listEndpoints(flags: ClientFlags, guest?: string): Promise<Endpoint[]> {
  const url = new URL("/api/v1/endpoints", base(flags));
  if (guest !== undefined) url.searchParams.set("guest", guest);
  let response: Response;
  try {
    response = await fetch(url, { headers: authorization(flags) });
  } catch (error) {
    throw unreachable(flags, (error as Error & { cause?: Error }).cause ?? (error as Error));
  }
  const body = await response.text();
  if (!response.ok) throw new CommandError(problemText(response.status, body));
  try {
    return EndpointList.parse(JSON.parse(body)).endpoints;
  } catch {
    throw new CommandError(`what answers at ${flags.url} is no rpmsg-bridge`);
  }
}

/**
 * Connects to GUEST/ENDPOINT. The socket is paused, so that nothing comes before whoever asked listens: `resume` it.
 * @throws CommandError with the bridge's own words where it refuses
 */
export async function openEndpoint(reference: string, flags: ChannelFlags): Promise<WebSocket> {
  const url = new URL(channelPath(reference), base(flags));
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (flags.share !== undefined) url.searchParams.set("share", flags.share);
  if (flags.local !== undefined) url.searchParams.set("local", flags.local);
  const socket = new WebSocket(url, { headers: authorization(flags), perMessageDeflate: false });
  await new Promise<void>((resolve, reject) => {
    socket.once("open", () => {
      socket.pause();
      resolve();
    });
    socket.once("error", (error) => reject(unreachable(flags, error)));
    socket.once("unexpected-response", (_request, response: IncomingMessage) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        body += part;
      });
      response.on("end", () => reject(new CommandError(problemText(response.statusCode ?? 0, body))));
    });
  });
  return socket;
}

/** Waits for a connection's end; one that is not normal is an error in the bridge's words. */
export function closed(socket: WebSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on("error", (error) => reject(new CommandError(error.message)));
    socket.once("close", (code, reason) => {
      if (code === 1000 || code === 1005) resolve();
      else
        reject(
          new CommandError(`the connection ended with ${code}: ${reason.toString() || "no reason given"}`),
        );
    });
  });
}

/**
 * Reads bytes from hexadecimal digits; white space does not matter.
 * @throws CommandError
 */
export function parseHex(text: string): Buffer {
  const digits = text.replaceAll(/\s/g, "");
  if (digits.length % 2 !== 0 || /[^0-9a-fA-F]/.test(digits)) {
    throw new CommandError(`"${text}" is not bytes in hexadecimal digits`, exitCode.usage);
  }
  return Buffer.from(digits, "hex");
}

/** A message as people see it. */
export function showMessage(data: Buffer, flags: { hex?: boolean; json?: boolean }): string {
  if (flags.json !== true) return flags.hex === true ? data.toString("hex") : data.toString("utf8");
  const text = data.toString("utf8");
  const encoding = flags.hex === true ? "hex" : Buffer.from(text).equals(data) ? "utf8" : "base64";
  return JSON.stringify({ data: data.toString(encoding), encoding });
}

/** The path of GUEST/ENDPOINT. */
export function channelPath(reference: string): string {
  const slash = reference.indexOf("/");
  const guest = reference.slice(0, slash);
  const endpoint = reference.slice(slash + 1);
  if (slash < 1 || endpoint === "") {
    throw new CommandError(`want GUEST/ENDPOINT, not "${reference}"`, exitCode.usage);
  }
  const path = encodeURIComponent(guest);
  if (endpoint.startsWith("~")) return endpointPath(path, { id: encodeURIComponent(endpoint.slice(1)) });
  const at = endpoint.lastIndexOf("@");
  const address = at === -1 ? undefined : parseAddress(endpoint.slice(at + 1));
  const name = Buffer.from(address === undefined ? endpoint : endpoint.slice(0, at)).toString("latin1");
  return endpointPath(path, address === undefined ? { name } : { name, address });
}

function base({ url }: ClientFlags): URL {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new CommandError(`--url: want http://HOST:PORT, not "${url}"`, exitCode.usage);
  }
  return new URL(url);
}

function authorization({ token }: ClientFlags): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

function unreachable({ url }: ClientFlags, error: Error & { code?: string }): CommandError {
  return new CommandError(`cannot reach the bridge at ${url}: ${error.code ?? error.message}`);
}

function problemText(status: number, body: string): string {
  try {
    const problem = Problem.parse(JSON.parse(body));
    return `${problem.detail} (${problem.code})`;
  } catch {
    return `the bridge answers with status ${status}`;
  }
}
