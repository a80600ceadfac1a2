import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { z } from "zod";
import {
  ClientFrame,
  Config,
  Endpoint,
  EndpointCreate,
  errorAdvice,
  events,
  Guest,
  JsonAnnounceQuery,
  JsonQuery,
  MessageSend,
  MuxClientFrame,
  MuxServerFrame,
  Problem,
  RawAnnounceQuery,
  RawQuery,
  ServerFrame,
} from "../../schemas/index.ts";
import { closeCodes, errorTable } from "../../server/documents/codes.ts";

const page = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8");

interface Table {
  /** Text of the cells of the first row. */
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** The tables below a heading of the page, before the next heading. */
function tablesBelow(heading: string): Table[] {
  const from = page.indexOf(`\n${heading}\n`);
  if (from === -1) throw new Error(`the page has no heading "${heading}"`);
  const [section = ""] = page.slice(from + heading.length + 2).split(/^#+ /m);
  const tables = [...section.matchAll(/^(?:\|.*\n)+/gm)].map(([text]) => text.trim().split("\n"));
  return tables.map((lines) => {
    const [head = [], , ...rows] = lines.map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );
    return { head, rows };
  });
}

/** The words in code of a cell: a field's name with `?` where it may be missing. */
function named(cell = ""): string[] {
  return [...cell.matchAll(/`([^`]*)`/g)].map(([, name = ""]) => name);
}

/** All names in the first cells of the rows. */
function firstNames({ rows }: Table): string[] {
  return rows.flatMap(([first]) => named(first));
}

function table(heading: string, first: string, position = 0): Table {
  const found = tablesBelow(heading).filter(({ head }) => head[0] === first)[position];
  if (found === undefined) throw new Error(`no table of ${first} below ${heading}`);
  return found;
}

/** The fields of a schema, with `?` where they may be missing. */
function fieldsOf(schema: z.ZodObject, known: readonly string[] = []): string[] {
  const fields = Object.entries(schema.shape).filter(([name]) => !known.includes(name));
  return fields.map(([name, field]) => ((field as z.ZodType).isOptional() ? `${name}?` : name));
}

/** A table of frames: the fields of each are in the rows below its name. */
function framesOf({ rows }: Table): Record<string, string[]> {
  const frames: Record<string, string[]> = {};
  let fields: string[] = [];
  for (const [frame, field] of rows) {
    const [name] = named(frame);
    if (name !== undefined) {
      fields = [];
      frames[name] = fields;
    }
    fields.push(...named(field));
  }
  return frames;
}

test.each([
  ["## `rpmsg.v1.json`", 0, ClientFrame],
  ["## `rpmsg.v1.json`", 1, ServerFrame],
  ["### Control frames", 0, MuxClientFrame],
  ["### Control frames", 1, MuxServerFrame],
] as const)("below %s, table %i has all frames with all fields", (heading, position, union) => {
  const frames = union.options.map((each: z.ZodObject) => {
    const { type } = each.shape as { type: z.ZodLiteral<string> };
    return [type.value, fieldsOf(each, ["type"])] as const;
  });
  expect(framesOf(table(heading, "frame", position))).toEqual(Object.fromEntries(frames));
});

test.each([
  ["a guest", table("## Guests and endpoints", "field", 0), Guest],
  ["its counters", table("## Guests and endpoints", "counter", 0), Guest.shape.counters],
  ["an endpoint", table("## Guests and endpoints", "field", 1), Endpoint],
  ["its counters", table("## Guests and endpoints", "counter", 1), Endpoint.shape.counters],
  ["a declaration", table("## Endpoints of the host", "field"), EndpointCreate],
  ["a single message", table("## Single messages", "field"), MessageSend],
  ["a problem", table("## Problems", "field"), Problem],
])("the table of %s has all fields", (_what, fields, schema: z.ZodObject) => {
  expect(firstNames(fields).toSorted()).toEqual(Object.keys(schema.shape).toSorted());
});

test("the table of query parameters has all of them", () => {
  const queries = [RawQuery, JsonQuery, RawAnnounceQuery, JsonAnnounceQuery];
  const known = new Set(queries.flatMap(({ shape }) => Object.keys(shape)));
  expect(firstNames(table("## Query parameters", "parameter")).toSorted()).toEqual([...known].toSorted());
});

test("the table of events has all of them", () => {
  expect(firstNames(table("## Events", "`event`"))).toEqual(Object.keys(events));
});

test("the table of codes has all of them, with status and advice", () => {
  const rows = errorTable().map(({ code, status, advice }) => [`\`${code}\``, String(status ?? "-"), advice]);
  expect(table("## Problems", "code").rows).toEqual(rows);
  expect(rows).toHaveLength(Object.keys(errorAdvice).length);
});

test("the table of close codes has all of them, and what no frame of the bridge says", () => {
  const codes = table("## Close codes", "code").rows.map(([code]) => Number(code));
  expect(codes).toEqual([1000, 1006, ...closeCodes().map(({ code }) => code)].toSorted((a, b) => a - b));
});

test("the table of limits has defaults of the configuration", () => {
  const { limits } = Config.parse({});
  const rows = table("## Limits and times", "what").rows;
  for (const [, value, key] of rows)
    expect([key, limits]).toEqual([
      key,
      expect.objectContaining({ [named(key)[0]?.replace("limits.", "") ?? ""]: Number(value) }),
    ]);
  expect(rows.length).toBeGreaterThan(10);
});
