import { isIP } from "node:net";

/**
 * The one spelling of an IP address: IPv6 in eight groups without leading zeros, an IPv4-mapped one as the IPv4 address
 * that it is (RFC 4291, 2.5.5.2), without a zone.
 * @returns undefined for anything else
 */
export function canonicalAddress(text: string): string | undefined {
  const [address = ""] = text.split("%", 1);
  const version = isIP(address);
  if (version === 4) return address;
  if (version === 0) return undefined;
  const groups = groupsOf(address);
  const [a, b, c, d, e, f, high = 0, low = 0] = groups;
  if ((a || b || c || d || e) === 0 && f === 0xffff) {
    return `${high >> 8}.${high & 0xff}.${low >> 8}.${low & 0xff}`;
  }
  return groups.map((group) => group.toString(16)).join(":");
}

/** What caps count a canonical address by: one network of IPv6, /64, is commonly one customer's. */
export function addressKey(address: string): string {
  return address.includes(":") ? `${address.split(":").slice(0, 4).join(":")}::/64` : address;
}

/** Whether a canonical address is one of this machine's own. */
export function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "0:0:0:0:0:0:0:1";
}

/** The eight groups of a valid IPv6 address. */
function groupsOf(address: string): number[] {
  const [head = "", tail] = address.split("::");
  const before = wordsOf(head);
  if (tail === undefined) return before;
  const after = wordsOf(tail);
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}

function wordsOf(text: string): number[] {
  if (text === "") return [];
  return text.split(":").flatMap((group) => {
    if (!group.includes(".")) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = group.split(".").map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}
