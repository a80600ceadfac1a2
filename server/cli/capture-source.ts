import { createReadStream } from "node:fs";
import type { Endpoint } from "../../schemas/index.ts";
import type { CapturedItem } from "../capture/pcapng-reader.ts";
import { PcapngError, PcapngReader } from "../capture/pcapng-reader.ts";
import { explain } from "./advice.ts";
import type { ClientFlags } from "./client.ts";
import { ask, incomprehensible, listEndpoints, problemText, textOf } from "./client.ts";
import { CommandError, exitCode } from "./command-error.ts";
import type { Reference } from "./reference.ts";
import { parseReference } from "./reference.ts";

/** What of a bridge is captured. */
export interface CaptureScope {
  guest?: string;
  /** GUEST/ENDPOINT */
  endpoint?: string;
}

/**
 * Follows a capture of a running bridge until it ends or breaks off.
 * @throws CommandError
 */
export async function* followCapture(
  scope: CaptureScope,
  flags: ClientFlags,
  signal: AbortSignal,
): AsyncGenerator<CapturedItem> {
  const path = `/api/v1/capture?${(await queryOf(scope, flags)).toString()}`;
  const response = await ask(path, flags, {}, signal);
  if (response.statusCode !== 200) {
    throw new CommandError(problemText(response.statusCode ?? 0, await textOf(response), flags));
  }
  const reader = new PcapngReader();
  try {
    for await (const part of response as AsyncIterable<Buffer>) yield* reader.read(part);
    reader.end();
  } catch (error) {
    throw error instanceof PcapngError ? incomprehensible(flags, error.message) : error;
  }
}

/**
 * Reads a file.
 * @throws CommandError
 */
export async function* readCapture(path: string): AsyncGenerator<CapturedItem> {
  const reader = new PcapngReader();
  try {
    const parts = path === "-" ? process.stdin : createReadStream(path);
    for await (const part of parts as AsyncIterable<Buffer>) yield* reader.read(part);
    reader.end();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof PcapngError || code !== undefined) {
      const name = path === "-" ? "standard input" : path;
      throw new CommandError(`cannot read ${name}: ${code ?? (error as Error).message}`);
    }
    throw error;
  }
}

/** Whether it is what a stream says that broke off, or was to end; else it is a mistake of ours. */
export function isBreak(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code !== undefined;
}

/**
 * The endpoint that is asked for.
 * @throws CommandError it is none, or another guest's
 */
export function scopeReference({ guest, endpoint }: CaptureScope): Reference | undefined {
  if (endpoint === undefined) return undefined;
  const reference = parseReference(endpoint);
  if (guest !== undefined && guest !== reference.guest) {
    throw new CommandError(`--guest ${guest} has no endpoint ${endpoint}`, exitCode.usage);
  }
  return reference;
}

async function queryOf(scope: CaptureScope, flags: ClientFlags): Promise<URLSearchParams> {
  const query = new URLSearchParams();
  const reference = scopeReference(scope);
  if (scope.guest !== undefined) query.set("guest", scope.guest);
  if (reference === undefined) return query;
  query.set("guest", reference.guest);
  // An endpoint that the guest announces again after a reset has another id: the capture goes on with its name.
  const { name, address, origin } =
    reference.id === undefined
      ? { ...reference, origin: undefined }
      : await byId(reference.guest, reference.id, flags);
  if (name !== undefined) query.set("name", name);
  if (address !== undefined && address !== null) query.set("address", String(address));
  if (origin !== undefined) query.set("origin", origin);
  return query;
}

async function byId(guest: string, id: string, flags: ClientFlags): Promise<Endpoint> {
  const found = (await listEndpoints(flags, { guest })).find((each) => each.id === id);
  if (found !== undefined) return found;
  throw new CommandError(explain(`guest "${guest}" has no endpoint "~${id}"`, "endpoint-unknown"));
}
