/** Names of pino's levels. */
const levels: Readonly<Record<number, string>> = {
  20: "debug",
  30: "info",
  40: "warn",
  50: "error",
  60: "fatal",
};

/**
 * A line of the log for people: time, level, event, and the fields. Texts are legible already: the log has seen to that.
 * @param line as pino writes it
 */
export function logLine(line: string): string {
  const { level, time, event, stack, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const clock = new Date(Number(time)).toTimeString().slice(0, 8);
  const name = levels[Number(level)] ?? String(level);
  const shown = Object.entries(fields).map(([key, value]) => `${key}=${word(value)}`);
  const trace = typeof stack === "string" && stack !== "" ? `\n${stack}` : "";
  return `${[clock, name.padEnd(5), String(event), ...shown].join("  ")}${trace}\n`;
}

function word(value: unknown): string {
  return typeof value === "string" && !/[\s"=]/.test(value) && value !== "" ? value : JSON.stringify(value);
}
