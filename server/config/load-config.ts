import { readFileSync } from "node:fs";
import type { Config, ConfigInput } from "../../schemas/index.ts";
import { checkConfig } from "./check-config.ts";
import { ConfigError } from "./config-error.ts";
import { parseAnnounceFlag, parseGuestFlag } from "./flags.ts";

/** The flags of `serve`, as they were given. */
export interface ServeFlags {
  config?: string;
  listen?: string;
  guest?: string[];
  announce?: string[];
  /** False with --no-auth. */
  auth?: boolean;
  readOnly?: boolean;
  handover?: string;
}

type Tree = { -readonly [Key in keyof ConfigInput]: ConfigInput[Key] };

/**
 * Puts the configuration together: flags before environment before file before defaults. Without any guest there is
 * the emulated guest `demo`.
 * @throws ConfigError that names the key
 */
export async function loadConfig(flags: ServeFlags, environment: NodeJS.ProcessEnv): Promise<Config> {
  const file = flags.config ?? environment["RPMSG_BRIDGE_CONFIG"];
  const tree: Tree = file === undefined ? {} : await readFile(file);
  applyEnvironment(tree, environment);
  if (flags.listen !== undefined) tree.listen = flags.listen;
  if (flags.auth === false) tree.auth = "none";
  if (flags.readOnly === true) tree.readOnly = true;
  if (flags.handover !== undefined) tree.handover = flags.handover;
  const guests = asRecord(tree.guests ?? {}, "guests");
  const flagged = new Set<string>();
  for (const text of flags.guest ?? []) {
    const { name, guest } = parseGuestFlag(text);
    if (flagged.has(name)) throw new ConfigError("--guest", `"${name}" is given twice`);
    flagged.add(name);
    guests[name] = guest;
  }
  if (Object.keys(guests).length === 0) guests["demo"] = { kind: "emulated" };
  for (const text of flags.announce ?? []) {
    const { guest, announcement } = parseAnnounceFlag(text);
    const target = Object.hasOwn(guests, guest) ? asRecord(guests[guest], `guests.${guest}`) : undefined;
    if (target === undefined) throw new ConfigError("--announce", `there is no guest "${guest}"`);
    const known = target["endpoints"] ?? [];
    if (!Array.isArray(known)) throw new ConfigError(`guests.${guest}.endpoints`, "want a list");
    guests[guest] = { ...target, endpoints: [...(known as unknown[]), announcement] };
  }
  return checkConfig({ ...tree, guests });
}

async function readFile(path: string): Promise<Tree> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError("config", `cannot read the file: ${(error as Error).message}`);
  }
  // Loaded for a file only: it is a twentieth of the time to start.
  const { parse } = await import("yaml");
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    // Not only YAMLParseError: aliases that are unknown or too many are a ReferenceError.
    throw new ConfigError("config", `${path} is not YAML: ${(error as Error).message.split("\n")[0]}`);
  }
  return asRecord(content ?? {}, path);
}

function applyEnvironment(tree: Tree, environment: NodeJS.ProcessEnv): void {
  const { RPMSG_BRIDGE_LISTEN, RPMSG_BRIDGE_HOSTS, RPMSG_BRIDGE_ORIGINS, RPMSG_BRIDGE_LOG_LEVEL } =
    environment;
  if (RPMSG_BRIDGE_LISTEN !== undefined) tree.listen = RPMSG_BRIDGE_LISTEN;
  if (RPMSG_BRIDGE_HOSTS !== undefined) tree.hosts = listOf(RPMSG_BRIDGE_HOSTS);
  if (RPMSG_BRIDGE_ORIGINS !== undefined) tree.origins = listOf(RPMSG_BRIDGE_ORIGINS);
  // The schema says which levels there are.
  if (RPMSG_BRIDGE_LOG_LEVEL !== undefined) tree.logLevel = RPMSG_BRIDGE_LOG_LEVEL as Config["logLevel"];
}

/** A list as environment variables have it: separated by commas. */
function listOf(text: string): string[] {
  return text
    .split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "");
}

function asRecord(value: unknown, key: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ConfigError(key, "want a mapping of keys to values");
  }
  return { ...value };
}
