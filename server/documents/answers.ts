import { STATUS_CODES } from "node:http";
import type { FastifyContextConfig } from "fastify";
import type { z } from "zod";
import { errorAdvice, Problem } from "../../schemas/index.ts";
import type { ProblemCode } from "../problem.ts";
import { doorProblems, HttpProblem, PROBLEM_TYPE } from "../problem.ts";
import type { JsonSchema, SchemaSet } from "./schema-set.ts";

/** Bodies by their types, or one in JSON. */
export type Content =
  | z.ZodType
  | { description?: string; content: Readonly<Record<string, { schema: z.ZodType }>> };

/** Header fields of errors, with the codes that they come with. */
const fields: Readonly<Record<string, { text: string; codes: ProblemCode[]; schema: JsonSchema }>> = {
  "Retry-After": {
    text: "Seconds until it is worth another try",
    codes: ["rate-limited", "overloaded"],
    schema: { type: "integer", minimum: 1 },
  },
  "WWW-Authenticate": {
    text: "What is to be shown (RFC 6750, 3)",
    codes: ["unauthorized"],
    schema: { type: "string" },
  },
};

/** All answers of a route, by status: its own, its errors, and those that every route has. */
export function answersOf(
  own: Readonly<Record<string, Content>>,
  { public: isPublic, problems = [] }: FastifyContextConfig,
  set: SchemaSet,
): Record<string, JsonSchema> {
  const answers: Record<string, JsonSchema> = {};
  for (const [status, content] of Object.entries(own)) {
    answers[status] = { description: STATUS_CODES[status], ...contentOf(content, "output", set) };
  }
  const codes = new Set([
    ...problems,
    ...(isPublic === true ? [] : ["unauthorized" as const]),
    ...doorProblems,
  ]);
  for (const status of new Set([...codes].map(statusOf))) {
    const some = [...codes].filter((code) => statusOf(code) === status);
    const { content, ...rest } = answers[status] ?? {};
    const texts = some.map((code) => `\`${code}\`: ${errorAdvice[code]}`);
    answers[status] = {
      ...rest,
      description: texts.join("\n\n"),
      content: { ...(content as object), ...(contentOf(Problem, "output", set)["content"] as object) },
      ...fieldsOf(some),
    };
  }
  answers["default"] = { description: "Any other error.", ...contentOf(Problem, "output", set) };
  return answers;
}

function statusOf(code: ProblemCode): number {
  return new HttpProblem(code, "").statusCode;
}

function fieldsOf(codes: readonly ProblemCode[]): { headers?: JsonSchema } {
  const headers: JsonSchema = {};
  for (const [name, { text, codes: some, schema }] of Object.entries(fields)) {
    const given = some.filter((code) => codes.includes(code));
    if (given.length === 0) continue;
    headers[name] = {
      description: `${text}: with ${given.map((each) => `\`${each}\``).join(", ")}.`,
      ...schema,
    };
  }
  return Object.keys(headers).length === 0 ? {} : { headers };
}

/** A body, by its types. */
export function contentOf(schema: Content, io: "input" | "output", set: SchemaSet): JsonSchema {
  if ("content" in schema) {
    const { content, ...rest } = schema;
    const types = Object.entries(content).map(([type, each]) => [type, { schema: set.of(each.schema, io) }]);
    return { ...rest, content: Object.fromEntries(types) };
  }
  const converted = set.of(schema, io);
  // Without a body.
  if (converted["type"] === "null") return converted;
  const type = schema === Problem ? PROBLEM_TYPE : "application/json";
  return { content: { [type]: { schema: converted } } };
}
