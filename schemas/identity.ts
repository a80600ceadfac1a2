import { z } from "zod";

/** A guest's name. `.` is left out: it separates the bridge from the guest in names that span bridges. */
export const GuestName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/,
    "a guest name has 1 to 63 of A-Z a-z 0-9 _ -, a letter or digit first",
  );

/** An RPMsg address, 32 bits; 0xffffffff is "any" and no address. */
export const Address = z.int().min(0).max(0xffff_fffe);

/** Reads an address as people write it, decimal or with 0x; undefined when it is none. */
export function parseAddress(text: string): number | undefined {
  if (!/^(\d{1,10}|0[xX][0-9a-fA-F]{1,8})$/.test(text)) return undefined;
  const parsed = Address.safeParse(Number(text));
  return parsed.success ? parsed.data : undefined;
}

/** An address in a query. */
export const AddressText = z.string().transform((text, context) => {
  const address = parseAddress(text);
  if (address !== undefined) return address;
  context.addIssue(`"${text}" is not an address: want a number below 2^32 - 1, decimal or with 0x`);
  return z.NEVER;
});

/** Length in UTF-8; not by Buffer, which browsers have not got. */
export function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** 1 to 31 bytes of UTF-8, none of them zero: the wire has 32 bytes with the final zero. */
export const ServiceName = z
  .string()
  .refine((name) => name !== "" && bytesOf(name) <= 31 && !name.includes("\0"), {
    message: "a service name has 1 to 31 bytes, none of them zero",
  });

export const Origin = z.enum(["guest", "host"]);
export type Origin = z.infer<typeof Origin>;

/** Number of a guest's attachment. */
export const Generation = z.int().min(1);

export const Count = z.int().min(0);

/**
 * waiting: no frontend; detached: a frontend, its driver not running; suspended: both rings stopped, as in a paused
 * virtual machine; attached: the driver runs.
 */
export const GuestState = z.enum(["waiting", "detached", "suspended", "attached"]);
export type GuestState = z.infer<typeof GuestState>;

/**
 * declared: the other side has not been told, or has not told us, of it; announced: the guest was told; connected: the
 * peer's address is known.
 */
export const EndpointState = z.enum(["declared", "announced", "connected"]);
export type EndpointState = z.infer<typeof EndpointState>;
