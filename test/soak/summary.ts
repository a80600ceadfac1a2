import { formatTable } from "../../bench/harness.ts";
import { count } from "../support/figures.ts";
import type { Slope } from "./slope.ts";
import type { SoakResult } from "./soak.ts";

/** MiB an hour that the memory of a bridge may grow by, in a run of 20 minutes or more. */
const MOST_GROWTH = 1;
/** From so many minutes on the slope says something. */
const LONG_ENOUGH = 20;

const BEGIN = "<!-- soak: npm run soak -- --minutes 20 --write -->";
const END = "<!-- /soak -->";

/** Whether it passed: for a short run the slope is no matter. */
export function isPassed({ problems, minutes, rss }: SoakResult): boolean {
  return problems.length === 0 && (minutes < LONG_ENOUGH || rss.perHour < MOST_GROWTH);
}

/** A run in a table, and what went wrong below it. */
export function summary(result: SoakResult): string {
  const { minutes, seed, rss, loaded, inUse, descriptors, mixed, visitors, samples, problems } = result;
  const endpoints = Object.values(mixed.endpoints);
  const total = (value: (each: (typeof endpoints)[number]) => number) =>
    count(endpoints.reduce((sum, each) => sum + value(each), 0));
  const resident = samples.map((sample) => sample.resident);
  const [first = 0] = resident;
  const rows = {
    run: `${minutes} minutes, seed ${seed}, guest profile ${mixed.profile}`,
    "messages to the guest": `${total((each) => each.messagesToGuest)}, all accounted for`,
    "messages to clients": `${total((each) => each.messagesToClients)}, dropped for slow readers ${total((each) => each.dropped)}`,
    connections: total((each) => each.connections),
    "guest resets, pauses": `${mixed.resets}, ${mixed.pauses}`,
    "frontends killed": count(visitors.kills),
    "echoes checked beside them": count(visitors.echoes),
    "services of clients, their messages": `${count(visitors.services)}, ${count(visitors.serviceMessages)}`,
    "clients that did not read, closed for it": `${count(visitors.stalls)}, ${count(visitors.closedSlow)}`,
    "messages dropped for the others of them": count(visitors.dropped),
    "HTTP requests, watchers, events": `${count(visitors.rest)}, ${count(visitors.watches)}, ${count(visitors.events)}`,
    "descriptors before, most, after": `${descriptors.before}, ${descriptors.most}, ${descriptors.after}`,
    "RSS under load at the start, most, at the end": [first, Math.max(...resident), resident.at(-1) ?? 0]
      .map((each) => `${each.toFixed(1)} MiB`)
      .join(", "),
    "RSS slope at rest, after a quarter of the time": slopeText(rss),
    "heap and buffers in use at rest": slopeText(inUse),
    "RSS slope under load": slopeText(loaded),
    "problems (order, gaps, sums, leaks)": String(problems.length),
    verdict: verdictOf(result),
  };
  const table = formatTable(Object.entries(rows).map(([what, measured]) => ({ what, measured })));
  return problems.length === 0 ? table : `${table}\n${problems.map((each) => `- ${each}\n`).join("")}`;
}

/**
 * Puts the run into the page, instead of the one before.
 * @throws Error the page has no place for it
 */
export function writeSummary(page: string, result: SoakResult, note: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin === -1 || end < begin) throw new Error(`the page has no "${BEGIN}" before "${END}"`);
  return `${page.slice(0, begin)}${BEGIN}\n\n${note}\n\n${summary(result)}\n${page.slice(end)}`;
}

function slopeText({ perHour, low, high, points }: Slope): string {
  if (points < 3) return "too short a run";
  return `${perHour.toFixed(2)} MiB/h (95 %: ${low.toFixed(2)} to ${high.toFixed(2)}, ${points} points)`;
}

function verdictOf(result: SoakResult): string {
  const passed = isPassed(result) ? "passed" : "**failed**";
  const { minutes } = result;
  if (minutes < LONG_ENOUGH) return `${passed}; the slope counts from ${LONG_ENOUGH} minutes on`;
  return `${passed}: RSS slope below ${MOST_GROWTH} MiB/h, no problem`;
}
