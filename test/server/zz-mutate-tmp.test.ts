import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parseTranscripts } from "../support/transcript.ts";
import { expectReplay } from "./replay.ts";
const page = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8");
const jobs: [string, any][] = [];
for (const t of parseTranscripts(page)) for (const [i, line] of t.lines.entries()) {
  if (!line.mark.startsWith("<") || line.text === "") continue;
  const variants: string[] = [];
  const m = /^(data: )?(\{.*)$/.exec(line.text);
  if (m) { const o = JSON.parse(m[2]!); for (const k of Object.keys(o)) { const c = structuredClone(o); delete c[k]; variants.push((m[1] ?? "") + JSON.stringify(c));
    if (!/^<\w+>$/.test(String(o[k]))) { const d = structuredClone(o); d[k] = typeof d[k] === "number" ? d[k] + 1 : typeof d[k] === "string" ? d[k] + "x" : typeof d[k] === "boolean" ? !d[k] : { a: 1 }; variants.push((m[1] ?? "") + JSON.stringify(d)); } } 
    variants.push((m[1] ?? "") + JSON.stringify({ ...o, extra: 1 })); }
  else if (/^id: /.test(line.text)) { continue; }
  else if (/^[0-9a-f]{2}/.test(line.text) && !/^2\d\d |^4\d\d |^204$/.test(line.text)) variants.push(line.text + " 00", line.text.replace(/^../, (h) => h === "01" ? "02" : "01"));
  else variants.push(line.text + "x");
  for (const v of variants) jobs.push([`${line.number}: ${v.slice(0, 90)}`, { ...t, lines: t.lines.map((l, j) => j === i ? { ...l, text: v } : l) }]);
}
test(`mutants`, async () => {
  const survivors: string[] = [];
  for (const [name, t] of jobs) { try { await expectReplay(t); survivors.push(name); } catch (e) { if (!String(e).includes("strictly equal")) survivors.push("ODD " + name + String(e).slice(0, 100)); } }
  console.log(jobs.length, "mutants", survivors);
  expect(survivors).toEqual([]);
}, 600_000);
