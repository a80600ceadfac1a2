/**
 * The process of clients that flood: `flooders-main.js PROTOCOL URL PATH COUNT`. Whenever it is asked it tells what they
 * were told so far.
 */
import type { Protocol } from "./flooder.ts";
import { Flooder } from "./flooder.ts";

export interface Told {
  /** How many of them were told anything. */
  readonly clients: number;
  /** Codes of errors and of closes, with how often. */
  readonly codes: Readonly<Record<string, number>>;
}

const [, , protocol, url = "", path = "", count = ""] = process.argv;
const flooders = Array.from({ length: Number(count) }, () => new Flooder(url, protocol as Protocol, path));

process.on("message", () => {
  const codes: Record<string, number> = {};
  for (const { told } of flooders) for (const [code, times] of told) codes[code] = (codes[code] ?? 0) + times;
  const told: Told = { clients: flooders.filter((each) => each.told.size > 0).length, codes };
  process.send?.(told);
});
process.once("disconnect", () => process.exit());
