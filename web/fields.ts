/** Fields of one message that are numbers: their path in the JSON value, and the number. */
export type Fields = ReadonlyMap<string, number>;

/** Fields that are looked at in a message, and lines that are drawn. */
export const MOST_FIELDS = 12;
const DEEPEST = 4;

/** Names that count or tell the time: they are there, and not drawn until they are asked for. */
const COUNTING = /(^|\.)(seq|sequence|n|count|id|t|ts|time|timestamp|uptime)$/i;

/**
 * The numbers of a JSON value, in objects and lists too. A number by itself has the name `value`.
 * @returns empty where there are none
 */
export function numericFields(value: unknown): Fields {
  const fields = new Map<string, number>();
  collect(value, "", 0, fields);
  return fields;
}

export function isCounting(name: string): boolean {
  return COUNTING.test(name);
}

function collect(value: unknown, name: string, depth: number, fields: Map<string, number>): void {
  if (fields.size >= MOST_FIELDS) return;
  if (typeof value === "number") {
    if (Number.isFinite(value)) fields.set(name === "" ? "value" : name, value);
  } else if (typeof value === "object" && value !== null && depth < DEEPEST) {
    for (const [key, each] of Object.entries(value)) {
      collect(each, name === "" ? key : `${name}.${key}`, depth + 1, fields);
    }
  }
}
