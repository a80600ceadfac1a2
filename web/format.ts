/** A number for people: 1,234 or 0.25. */
export function number(value: number, digits = 0): string {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** A number that changes all the time: at most so many characters. */
export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 10) return number(value, 1);
  if (value < 100_000) return number(value);
  return value < 1e6 ? `${number(value / 1e3)} k` : `${number(value / 1e6, 1)} M`;
}

export function byteRate(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${number(value)} B`;
  return value < 1e6 ? `${number(value / 1e3, 1)} kB` : `${number(value / 1e6, 1)} MB`;
}

export function duration(milliseconds: number | null | undefined): string {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 1) return `${number(milliseconds * 1000)} µs`;
  return milliseconds < 1000 ? `${number(milliseconds, 1)} ms` : `${number(milliseconds / 1000, 1)} s`;
}

export function address(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : `${value} (0x${value.toString(16)})`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** Time of day with milliseconds. */
export function clock(at: number): string {
  const date = new Date(at);
  const milliseconds = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${milliseconds}`;
}
