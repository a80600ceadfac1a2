import { closeCode, errorAdvice, errorCodes } from "../../schemas/index.ts";
import type { ProblemCode } from "../problem.ts";
import { HttpProblem } from "../problem.ts";

/** What close codes mean, and what to do. */
const closeTexts: Record<keyof typeof closeCode, string> = {
  drain: "The bridge is stopping. Connect again later.",
  unsupported: "A binary frame in a subprotocol that has text frames only.",
  policy:
    "A message in too many pieces; or, with a code as the reason, what the token does not permit: `unauthorized`, it has " +
    "expired; `forbidden`, `read-only`, it may not send.",
  tooBig: "A message over the MTU. Nothing of it was sent.",
  internal: "The bridge made a mistake; its log says which.",
  restart: "The bridge goes on in another process. Connect again at once; a JSON session can be resumed.",
  slowReader: "The client did not read what the guest sends, or sent far more than the guest takes.",
  guestReset: "The guest was reset or detached. Connect again, and send again what may come twice.",
  endpointWithdrawn: "The endpoint was withdrawn. Connect again when it is listed.",
  replaced: "Another client took the endpoint over, with takeover=1.",
  notDelivered:
    "A message was not delivered in time; the reason is the code of the error. Those behind it were dropped.",
};

/** Close codes of the WebSocket protocol itself, from the library that speaks it. */
const protocolTexts: Readonly<Record<number, string>> = {
  1002: "A frame that breaks the WebSocket protocol.",
  1007: "A text message that is not UTF-8.",
};

/** All close codes, in order. */
export function closeCodes(): { code: number; description: string }[] {
  const ours = Object.entries(closeTexts).map(([name, description]) => ({
    code: closeCode[name as keyof typeof closeCode],
    description,
  }));
  const others = Object.entries(protocolTexts).map(([code, description]) => ({
    code: Number(code),
    description,
  }));
  return [...ours, ...others].toSorted((a, b) => a.code - b.code);
}

/** All error codes with the status of HTTP answers; codes of WebSocket frames alone have none. */
export function errorTable(): { code: string; status?: number; advice: string }[] {
  return errorCodes.map((code) => {
    const { statusCode: status }: { statusCode?: number } = new HttpProblem(code as ProblemCode, "");
    return { code, ...(status !== undefined && { status }), advice: errorAdvice[code] };
  });
}

/** A table in Markdown. */
export function markdownTable(rows: readonly Row[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const body = rows.map((row) => columns.map((column) => row[column] ?? ""));
  const lines = [columns, columns.map(() => "---"), ...body];
  return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

type Row = Readonly<Record<string, string | number>>;
