import type { ValidateFunction } from "ajv/dist/2020.js";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { OpenAPIV3_1 } from "openapi-types";
import type { Problem } from "../../schemas/index.ts";

export type Document = OpenAPIV3_1.Document;

export interface Operation {
  readonly method: string;
  readonly path: string;
  readonly operation: OpenAPIV3_1.OperationObject;
}

export function operationsOf({ paths }: Document): Operation[] {
  return Object.entries(paths ?? {}).flatMap(([path, item]) =>
    Object.entries(item ?? {}).map(([method, operation]) => ({
      method: method.toUpperCase(),
      path,
      operation: operation as OpenAPIV3_1.OperationObject,
    })),
  );
}

/** Checks answers against the document, and notes which of those that it has were given. */
export class AnswerChecker {
  /** `operationId status [code]` */
  readonly given = new Set<string>();
  readonly #ajv = new Ajv2020({ strict: true, validateFormats: false, allErrors: true });
  readonly #operations: Operation[];

  constructor(document: Document) {
    this.#ajv.addVocabulary(["openapi", "info", "components", "security", "paths", "tags", "example"]);
    this.#ajv.addSchema(document, "document");
    this.#operations = operationsOf(document);
  }

  /** What there is to be given: `default` is for the rest. */
  get documented(): Set<string> {
    const all = new Set<string>();
    for (const { operation } of this.#operations) {
      for (const [status, response] of Object.entries(operation.responses ?? {})) {
        if (status === "default") continue;
        const codes = codesOf(response as OpenAPIV3_1.ResponseObject);
        for (const code of codes) all.add(`${operation.operationId} ${status} ${code}`);
        if (codes.length === 0 || hasOther(response as OpenAPIV3_1.ResponseObject))
          all.add(`${operation.operationId} ${status}`);
      }
    }
    return all;
  }

  /** The schema at a place in the document, ready for use. */
  schema(...path: string[]): ValidateFunction {
    const pointer = path.map((part) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1")));
    const validate = this.#ajv.getSchema(`document#/${pointer.join("/")}`);
    if (validate === undefined) throw new Error(`no schema at ${path.join(" ")}`);
    return validate;
  }

  /** Checks one answer; its body as text. */
  check(operationId: string, response: Response, body: string): void {
    const found = this.#operations.find(({ operation }) => operation.operationId === operationId);
    if (found === undefined) throw new Error(`no operation ${operationId}`);
    const { responses = {} } = found.operation;
    const status = `${response.status}`;
    const documented = responses[status] as OpenAPIV3_1.ResponseObject | undefined;
    if (documented === undefined) throw new Error(`${operationId} has no ${status}: ${body}`);
    const codes = codesOf(documented);
    if (documented.content === undefined) {
      if (body !== "") throw new Error(`${operationId} ${status} has no body: ${body}`);
      this.given.add(`${operationId} ${status}`);
      return;
    }
    const type = response.headers.get("content-type")?.split(";")[0] ?? "";
    if (!(type in documented.content)) throw new Error(`${operationId} ${status} is no ${type}`);
    const place = [
      "paths",
      found.path,
      found.method.toLowerCase(),
      "responses",
      status,
      "content",
      type,
      "schema",
    ];
    const validate = this.schema(...place);
    const value: unknown = type.endsWith("json") ? JSON.parse(body) : body;
    if (!validate(value))
      throw new Error(`${operationId} ${status}: ${JSON.stringify(validate.errors)}: ${body}`);
    if (type !== PROBLEM) {
      this.given.add(`${operationId} ${status}`);
      return;
    }
    const problem = value as Problem;
    const { code } = problem;
    if (!codes.includes(code)) throw new Error(`${operationId} ${status} has no ${code}`);
    if (problem.status !== response.status)
      throw new Error(`${operationId} ${status} says ${problem.status}`);
    this.#checkFields(`${operationId} ${status} ${code}`, response, documented);
    this.given.add(`${operationId} ${status} ${code}`);
  }

  /** Header fields come with the codes that their texts name, and with no other. */
  #checkFields(what: string, { headers }: Response, documented: OpenAPIV3_1.ResponseObject): void {
    const [, , code = ""] = what.split(" ");
    const fields = (documented.headers ?? {}) as Record<string, OpenAPIV3_1.HeaderObject>;
    const want = Object.keys(fields).filter((name) => fields[name]?.description?.includes(`\`${code}\``));
    for (const name of ["retry-after", "www-authenticate"]) {
      const isWanted = want.some((each) => each.toLowerCase() === name);
      if (headers.has(name) !== isWanted) throw new Error(`${what}: ${name} is ${headers.get(name)}`);
    }
    for (const name of want) {
      const text = headers.get(name) ?? "";
      const { type } = (fields[name]?.schema ?? {}) as OpenAPIV3_1.SchemaObject;
      const validate = this.#ajv.compile(fields[name]?.schema ?? false);
      if (!validate(type === "integer" ? Number(text) : text)) throw new Error(`${what}: ${name} is ${text}`);
    }
  }
}

const PROBLEM = "application/problem+json";

/** Whether the answer may also be something else than a problem. */
function hasOther({ content = {} }: OpenAPIV3_1.ResponseObject): boolean {
  return Object.keys(content).some((type) => type !== PROBLEM);
}

/** The codes that the text of an error names, each at the start of a line. */
function codesOf({ content, description }: OpenAPIV3_1.ResponseObject): string[] {
  if (content?.[PROBLEM] === undefined) return [];
  return [...description.matchAll(/^`([a-z-]+)`/gm)].map(([, code = ""]) => code);
}
