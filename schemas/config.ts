import { z } from "zod";
import { TokenList } from "./access.ts";
import { EndpointDeclaration } from "./declaration.ts";
import { bytesOf, GuestName } from "./identity.ts";
import { Limits } from "./limits.ts";

/** Linux allows 107 bytes. */
const SocketPath = z
  .string()
  .min(1)
  .refine((path) => bytesOf(path) <= 107, { message: "a socket path has at most 107 bytes" });

const common = {
  /** Endpoints that are there before the guest has announced any. */
  endpoints: z.array(EndpointDeclaration).default([]),
};

const EmulatedGuest = z.strictObject({
  ...common,
  kind: z.literal("emulated"),
  profile: z.enum(["linux", "openamp", "rpmsg-lite"]).optional(),
  /** A module whose default export is an `EmulatedGuest`; without it the guest has the demonstration services. */
  path: z.string().min(1).optional(),
});

const VhostUserGuest = z.strictObject({
  ...common,
  kind: z.literal("vhost-user"),
  /** Unix socket. */
  path: SocketPath,
  mode: z.enum(["listen", "connect"]).default("listen"),
  /** `linux-bufsz` offers the buffer sizes of Linux 2026 (F_BUFSZ); their bits mean other things elsewhere. */
  dialect: z.enum(["linux", "linux-bufsz"]).default("linux"),
  /** `process` keeps the frontend's connection and the guest's memory in a process of their own. */
  isolation: z.enum(["none", "process"]).default("none"),
  /** `adaptive` looks for the guest's messages for a moment after each, instead of waiting: less latency, more CPU. */
  poll: z.enum(["off", "adaptive"]).default("off"),
});

export const GuestConfig = z.discriminatedUnion("kind", [EmulatedGuest, VhostUserGuest]);
export type GuestConfig = z.infer<typeof GuestConfig>;

const TrustedProxy = z.union([z.literal(["loopback", "unix"]), z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()], {
  error: 'want an address, a network as 10.0.0.0/8, "loopback" or "unix"',
});

const Path = z.string().min(1);

const Tls = z.strictObject({
  /** Files in PEM: the certificate with those between it and its authority, and its key. */
  cert: Path,
  key: Path,
  /** Authorities of which every client must have a certificate. */
  clientCa: Path.optional(),
});
export type Tls = z.infer<typeof Tls>;

/** The configuration, as the file has it; flags and environment are merged into it before it is checked. */
export const Config = z.strictObject({
  /** `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`; port 0 picks a free one. */
  listen: z.string().default("127.0.0.1:8080"),
  /** Permissions of a Unix socket, in octal digits. */
  socketMode: z
    .string()
    .regex(/^0?[0-7]{3}$/, 'want octal digits in quotes, such as "0660"')
    .optional(),
  tls: Tls.optional(),
  /** Who may connect: tokens: whoever has one of `tokens`; without any, everybody on this machine; none: everybody. */
  auth: z.enum(["tokens", "none"]).default("tokens"),
  tokens: TokenList.default([]),
  /** Nothing is sent to a guest, and nothing declared. */
  readOnly: z.boolean().default(false),
  /** Names besides `localhost` and addresses under which the bridge may be reached. */
  hosts: z
    .array(
      z
        .string()
        .toLowerCase()
        .regex(/^[^:/\s]+$/, "want a name, without a port"),
    )
    .default([]),
  /** Web origins besides the bridge's own that may connect, such as `https://panel.example`. */
  origins: z
    .array(
      // Of other schemes, as those of extensions and files, the origin is "null": everybody's.
      z
        .url({ protocol: /^https?$/, error: "want an origin such as https://panel.example" })
        .transform((url) => new URL(url).origin),
    )
    .default([]),
  /**
   * Proxies that are believed who came before them: addresses, networks as `10.0.0.0/8`, `loopback` for those of this
   * machine, `unix` for whoever comes over the Unix socket that is listened on.
   */
  trustedProxies: z.array(TrustedProxy).default([]),
  logLevel: z.enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"]).default("info"),
  /** Unix socket on which a successor takes over: `serve --successor-of`. Only the bridge's user may connect to it. */
  handover: SocketPath.optional(),
  guests: z.record(GuestName, GuestConfig).default({}),
  limits: Limits.prefault({}),
});
export type Config = z.infer<typeof Config>;
/** The configuration before defaults are filled in. */
export type ConfigInput = z.input<typeof Config>;
