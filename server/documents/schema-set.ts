import { z } from "zod";
import {
  Access,
  Endpoint,
  EndpointCreate,
  EndpointList,
  events,
  Guest,
  GuestList,
  MessageReply,
  MessageSend,
  MessageSent,
  Problem,
} from "../../schemas/index.ts";
import { fieldText } from "./field-texts.ts";

export type JsonSchema = Record<string, unknown>;

interface Named {
  id?: string;
  description?: string;
  examples?: unknown[];
}

/** Schemas that have a name in the documents. */
const named = z.registry<Named>();
named.add(Guest, { id: "Guest" });
named.add(Guest.shape.counters, {
  id: "GuestCounters",
  description: "Messages and bytes are payload; they count from the start of the bridge on.",
});
named.add(GuestList, { id: "GuestList" });
named.add(Endpoint, { id: "Endpoint" });
named.add(Endpoint.shape.counters, {
  id: "EndpointCounters",
  description:
    "Messages and bytes are payload. Once nothing waits, `accepted` is `messagesToGuest` and `undelivered` together.",
});
named.add(EndpointList, { id: "EndpointList" });
named.add(EndpointCreate, {
  id: "EndpointDeclaration",
  description: "An endpoint that the host declares.",
  examples: [{ name: "panel", ns: "down" }],
});
named.add(Access, { id: "Access", description: "Who asks, and what they may do." });
named.add(events["endpoint-removed"], { id: "EndpointRemoved" });
named.add(events.ready, { id: "Ready" });
named.add(MessageSend, {
  id: "MessageSend",
  examples: [{ data: "hello", wait: 1000 }],
});
named.add(MessageSent, { id: "MessageSent" });
named.add(MessageReply, { id: "MessageReply", description: "The first message that came back." });
named.add(Problem, {
  id: "Problem",
  description: "An error, as RFC 9457 has it, with a stable `code`.",
});

/** JSON schemas of one document, made from those in zod; the named ones become its components. */
export class SchemaSet {
  readonly components: Record<string, JsonSchema> = {};
  readonly #target: "draft-07" | "draft-2020-12";

  constructor(target: "draft-07" | "draft-2020-12") {
    this.#target = target;
  }

  /**
   * The schema of what is sent to the bridge (input) or comes from it (output).
   * @param name whose words are used for its fields
   */
  of(schema: z.ZodType, io: "input" | "output", name = ""): JsonSchema {
    const converted = z.toJSONSchema(schema, {
      target: this.#target,
      io,
      metadata: named,
      unrepresentable: "any",
      override: tidy,
    });
    const { $schema: _, $defs, definitions, ...rest } = relocated(converted) as JsonSchema;
    const parts = ($defs ?? definitions ?? {}) as Record<string, JsonSchema>;
    for (const [id, part] of Object.entries(parts)) this.components[id] ??= withTexts(part, id);
    return withTexts(rest, name);
  }

  /** Makes a schema a component. */
  add(id: string, schema: z.ZodType, io: "input" | "output"): JsonSchema {
    this.components[id] = this.of(schema, io, id);
    return { $ref: `#/components/schemas/${id}` };
  }
}

type Override = NonNullable<NonNullable<Parameters<typeof z.toJSONSchema>[1]>["override"]>;

/** Says of a schema what clients have to know, and nothing else. */
const tidy: Override = ({ zodSchema, jsonSchema }) => {
  const { def } = zodSchema._zod;
  // More fields may come in later versions.
  if (def.type === "object" && (def as z.core.$ZodObjectDef).catchall === undefined) {
    delete jsonSchema.additionalProperties;
  }
  // The bounds of every integer in JSON.
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  // The bytes of a message, which JSON schemas have no word for.
  if (def.type === "custom") Object.assign(jsonSchema, { type: "string", format: "binary" });
  // Numbers in a query are bound by what they are turned into.
  if (def.type === "pipe") {
    const { in: from, out } = def;
    if (from._zod.def.type === "number") {
      const { $schema: _, ...bounds } = z.toJSONSchema(out, { override: tidy });
      Object.assign(jsonSchema, bounds);
    }
  }
};

/** Named schemas are with the document's components. */
function relocated(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (key, item: unknown) =>
    key === "$ref" && typeof item === "string"
      ? item.replace(/^#\/(?:\$defs|definitions)\//, "#/components/schemas/")
      : item,
  );
}

function withTexts(schema: JsonSchema, name: string): JsonSchema {
  for (const [field, property] of Object.entries(
    (schema["properties"] ?? {}) as Record<string, JsonSchema>,
  )) {
    const description = fieldText(name, field);
    // Beside a reference it would count for nothing.
    if (description !== undefined && property["$ref"] === undefined) property["description"] = description;
  }
  return schema;
}
