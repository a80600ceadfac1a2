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

export const Origin = z.enum(["guest", "host"]);
export type Origin = z.infer<typeof Origin>;
