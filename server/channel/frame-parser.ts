import type { z } from "zod";

/** A client's frame, or what is wrong with it and, where it can be told, the id of its message. */
export type ParsedFrame<T> = { frame: T } | { problem: string; id: string | number | undefined };

/** Reads a text frame. */
export function parseFrame<T>(schema: z.ZodType<T>, data: Buffer): ParsedFrame<T> {
  let value: unknown;
  try {
    value = JSON.parse(data.toString());
  } catch (error) {
    return { problem: `not JSON: ${(error as Error).message}`, id: undefined };
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return { frame: parsed.data };
  const [issue] = parsed.error.issues;
  const path = issue?.path.join(".") ?? "";
  const problem = `${path === "" ? "" : `${path}: `}${issue?.message ?? "not understood"}`;
  const id = typeof value === "object" && value !== null ? (value as { id?: unknown }).id : undefined;
  // Only one that a message may have: whoever reads the answer relies on that.
  const named = typeof id === "number" ? Number.isSafeInteger(id) : typeof id === "string" && id.length <= 64;
  return { problem, id: named ? (id as string | number) : undefined };
}
