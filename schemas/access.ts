import { z } from "zod";

/**
 * What a client may do with an endpoint. list: see it, and its guest, which every other right includes; read: get its
 * messages; write: send messages to it; announce: declare and withdraw it as a service of the host; admin: take it over,
 * and choose addresses freely.
 */
export const rights = ["list", "read", "write", "announce", "admin"] as const;
export type Right = (typeof rights)[number];

/**
 * `GUEST/ENDPOINT`, in which `*` stands for any characters, or none, of its part; the endpoint's is written as in its
 * path, so that `%` and two digits are a byte.
 */
const EndpointPattern = z
  .string()
  .max(200)
  .regex(
    /^[A-Za-z0-9*][A-Za-z0-9_*-]*\/(?:[^%]|%[0-9a-fA-F]{2})+$/,
    'want GUEST/ENDPOINT, with * for any characters, such as "vm0/*"',
  );

const Patterns = z.array(EndpointPattern).max(256).optional();

/** A token that the bridge takes. The token itself is nowhere: only who has it can show it. */
export const TokenConfig = z.strictObject({
  /** For people. */
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, "want 1 to 63 of A-Z a-z 0-9 . _ -, a letter or digit first"),
  /** SHA-256 of the token; tokens are random, so that there is nothing to guess (rpmsg-bridge token makes them). */
  hash: z.string().regex(/^sha256:[0-9a-f]{64}$/, "want a line that `rpmsg-bridge token` has printed"),
  /** When it ends, with its connections. */
  expires: z.iso
    .datetime({ offset: true, error: "want a time such as 2027-01-31T12:00:00Z" })
    .transform((text) => Date.parse(text))
    .optional(),
  rights: z.strictObject({
    list: Patterns,
    read: Patterns,
    write: Patterns,
    announce: Patterns,
    admin: Patterns,
  } satisfies Record<Right, unknown>),
});
export type TokenConfig = z.infer<typeof TokenConfig>;

/** All tokens; none of their names and hashes twice. */
export const TokenList = z
  .array(TokenConfig)
  .max(256)
  .superRefine((tokens, context) => {
    for (const key of ["name", "hash"] as const) {
      const known = new Set<string>();
      for (const [index, token] of tokens.entries()) {
        if (known.has(token[key]))
          context.addIssue({ code: "custom", path: [index, key], message: "another token has it" });
        known.add(token[key]);
      }
    }
  });

/** The query of `GET /access`: rights to which endpoint; with less than that, to any of the guest, or of all. */
export const AccessQuery = z
  .strictObject({ guest: z.string().optional(), id: z.string().optional(), name: z.string().optional() })
  .refine(({ guest, id, name }) => guest !== undefined || (id ?? name) === undefined, {
    error: "id and name need guest",
  })
  .refine(({ id, name }) => id === undefined || name === undefined, { error: "want id or name, not both" });

export type AccessQuery = z.infer<typeof AccessQuery>;

/** Answer to `GET /access`: who asks, and what they may do. */
export const Access = z.object({
  /** Name of the token; null where the bridge asks for none. */
  token: z.string().nullable(),
  /** When the credential of the request ends; null where it does not by itself. */
  expires: z.iso.datetime().nullable(),
  /** Then nobody has `write` or `announce`. */
  readOnly: z.boolean(),
  rights: z.array(z.enum(rights)),
});
export type Access = z.infer<typeof Access>;

/** Answer to `POST /tickets`: a ticket is a bearer that is good for one request. */
export const Ticket = z.object({ ticket: z.string(), expires: z.iso.datetime() });
export type Ticket = z.infer<typeof Ticket>;

/** Answer to `POST /sessions`: a token that ends by itself. */
export const Session = z.object({ token: z.string(), expires: z.iso.datetime() });
export type Session = z.infer<typeof Session>;
