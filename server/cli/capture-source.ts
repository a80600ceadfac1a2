import { createReadStream } from "node:fs";
import type { IncomingMessage } from "node:http";
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

/** Another bridge goes on with the capture: a section of its own follows. */
export interface CaptureGap {
  readonly kind: "gap";
  /** From the end of what came before until the bridge began again: nothing of this time is in it. */
  readonly milliseconds: number;
}

/**
 * Follows a capture of a running bridge until it ends or breaks off. Where a bridge ends it in good order, as at a
 * hand-over, and another one answers in its place, that one goes on with it.
 * @throws CommandError
 */
export async function* followCapture(
  scope: CaptureScope,
  flags: ClientFlags,
  signal: AbortSignal,
): AsyncGenerator<CapturedItem | CaptureGap> {
  const path = `/api/v1/capture?${(await queryOf(scope, flags)).toString()}`;
  let ended: number | undefined;
  for (;;) {
    let response: IncomingMessage;
    try {
      response = await ask(path, flags, {}, signal);
    } catch (error) {
      if (ended !== undefined) return;
      throw error;
    }
    if (response.statusCode !== 200) {
      const text = await textOf(response);
      // It is about to end.
      if (ended !== undefined && response.statusCode === 503) return;
      throw new CommandError(problemText(response.statusCode ?? 0, text, flags));
    }
    if (ended !== undefined) yield { kind: "gap", milliseconds: Math.ceil(performance.now() - ended) };
    const reader = new PcapngReader();
    try {
      for await (const part of response as AsyncIterable<Buffer>) yield* reader.read(part);
      reader.end();
    } catch (error) {
      throw error instanceof PcapngError ? incomprehensible(flags, error.message) : error;
    }
    ended = performance.now();
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

/** A gap, for people. */
export function gapText({ milliseconds }: CaptureGap): string {
  return `another bridge goes on in this one's place, as after a hand-over: messages of ${milliseconds} ms are not captured`;
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
