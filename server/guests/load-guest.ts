import { readFileSync, statSync } from "node:fs";
import { extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { EmulatedGuest } from "../../guest/index.ts";
import type { GuestConfig } from "../../schemas/index.ts";
import { ConfigError } from "../config/config-error.ts";

/** A file that is no program, but what a guest has said. */
const CAPTURE = ".pcapng";

type EmulatedConfig = Extract<GuestConfig, { kind: "emulated" }>;

/**
 * The emulated guest that a configuration asks for: the one that is given, the one that its file exports, or the
 * demonstration. A profile in the configuration goes before the guest's own.
 * @param given made by whoever starts the bridge
 * @throws ConfigError that names `guests.NAME.path`, or `guests.NAME` for a given one
 */
export async function loadEmulatedGuest(
  name: string,
  config: EmulatedConfig,
  given?: EmulatedGuest,
): Promise<EmulatedGuest> {
  const { path, profile } = config;
  const key = given === undefined ? `guests.${name}.path` : `guests.${name}`;
  const fail = (reason: string): never => {
    throw new ConfigError(key, reason);
  };
  if (given !== undefined && path !== undefined) {
    fail("it is given as an object and as a file: leave out one of them");
  }
  const what = given === undefined && path !== undefined ? path : "the guest";
  const found = given ?? (path === undefined ? new EmulatedGuest() : await exportOf(path, fail));
  if (!(found instanceof EmulatedGuest)) return fail(`${what}: ${whyNot(found)}`);
  if (found.inUse) {
    return fail(
      `${what} is in use already: a guest runs at one place at a time, export a function that makes one`,
    );
  }
  if (profile !== undefined) found.setProfile(profile);
  return found;
}

/** What a file exports as its default; where that is a function, what it returns. Of a capture, the guest that plays it. */
async function exportOf(path: string, fail: (reason: string) => never): Promise<unknown> {
  const file = resolve(path);
  try {
    if (!statSync(file).isFile()) fail(`${path} is not a file`);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    fail(`cannot read ${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (extname(file) === CAPTURE) {
    const { guestOfCapture } = await import("./replay-guest.ts");
    try {
      return guestOfCapture(readFileSync(file));
    } catch (error) {
      return fail(`${path}: ${firstLine(error)}`);
    }
  }
  let exported: unknown;
  try {
    const module = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
    if (!("default" in module)) fail(`${path} has no default export: want an EmulatedGuest`);
    exported = module["default"];
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    return fail(`${path}: ${importFailure(path, error)}`);
  }
  if (typeof exported !== "function") return exported;
  try {
    return await (exported as () => unknown)();
  } catch (error) {
    return fail(`the function that ${path} exports failed: ${firstLine(error)}`);
  }
}

/** Why a module could not be loaded, in one line. */
function importFailure(path: string, error: unknown): string {
  const code = (error as NodeJS.ErrnoException | null | undefined)?.code;
  const reason = firstLine(error);
  if (code === "ERR_UNKNOWN_FILE_EXTENSION" && [".ts", ".mts"].includes(extname(path))) {
    return `Node ${process.versions.node} does not read TypeScript: use Node 22.18, 23.6 or newer, or a JavaScript file`;
  }
  if (code === "ERR_MODULE_NOT_FOUND" && reason.includes("'rpmsg-bridge'")) {
    return `${reason}: npm install rpmsg-bridge beside it`;
  }
  // Node keeps the place to itself until it prints the error.
  if (error instanceof SyntaxError) return `${error.name}: ${reason} (node ${path} shows where)`;
  return reason;
}

function whyNot(value: unknown): string {
  const kind = (value as object | null | undefined)?.constructor?.name;
  if (kind === "EmulatedGuest") {
    return "its EmulatedGuest is of another copy of rpmsg-bridge: run the one that is installed beside it (npx rpmsg-bridge)";
  }
  const found = typeof value === "object" && kind !== undefined ? `an object of ${kind}` : typeof value;
  return `want an EmulatedGuest, or a function that returns one, not ${value === null ? "null" : found}`;
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split("\n")[0] ?? "";
}
