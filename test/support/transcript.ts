/**
 * Transcripts of conversations, as docs/protocol.md has them in code blocks with the language `transcript`; the page
 * explains their lines.
 */
export interface Transcript {
  /** The heading above it. */
  readonly title: string;
  readonly lines: readonly TranscriptLine[];
}

/** Set up; client and server, a connection's begin and end or what is said; what happens to the guest. */
const marks = ["::", ">>", "<<", "!!", ">", "<"] as const;
type Mark = (typeof marks)[number];

export interface TranscriptLine {
  readonly mark: Mark;
  /** What follows the mark, with the lines that go on with it. */
  readonly text: string;
  /** Number in the page. */
  readonly number: number;
}

/**
 * The transcripts of a page.
 * @throws SyntaxError a line that is none
 */
export function parseTranscripts(markdown: string): Transcript[] {
  const transcripts: { title: string; lines: TranscriptLine[] }[] = [];
  let title = "";
  let lines: TranscriptLine[] | undefined;
  for (const [index, line] of markdown.split("\n").entries()) {
    if (lines !== undefined && line === "```") {
      lines = undefined;
    } else if (lines !== undefined) {
      addLine(lines, line, index + 1);
    } else if (line === "```transcript") {
      lines = [];
      transcripts.push({ title, lines });
    } else {
      title = /^#+ (.*)$/.exec(line)?.[1] ?? title;
    }
  }
  return transcripts;
}

function addLine(lines: TranscriptLine[], line: string, number: number): void {
  if (line === "" || line.startsWith("#")) return;
  const last = lines.at(-1);
  if (line.startsWith("  ") && last !== undefined) {
    lines[lines.length - 1] = { ...last, text: `${last.text} ${line.trim()}` };
    return;
  }
  const mark = marks.find((each) => line === each || line.startsWith(`${each} `));
  if (mark === undefined) throw new SyntaxError(`line ${number} is no line of a transcript: ${line}`);
  lines.push({ mark, text: line.slice(mark.length + 1), number });
}

/** Hexadecimal digits of whole bytes in any groups; `41*3` is 41 three times. */
const HEX = /^(?:(?:[0-9a-f]{2})+(?:\*\d+)? ?)+$/;

/**
 * What a line says: `{...}` is that JSON, `data: {...}` an object with it, `"..."` a text that is not JSON, hexadecimal
 * digits are bytes. Anything else is itself.
 */
export function contentOf(text: string): unknown {
  if (text.startsWith("{")) return JSON.parse(text);
  if (text.startsWith("data: ")) return { data: JSON.parse(text.slice("data: ".length)) };
  if (text.startsWith('"')) return { text: JSON.parse(text) };
  if (!HEX.test(text)) return text;
  const bytes = text.split(" ").map((group) => {
    const [digits = "", count = "1"] = group.split("*");
    return digits.repeat(Number(count));
  });
  return { hex: bytes.join("") };
}

const PLACEHOLDER = /<([a-z]+)>/g;

/** What `<name>` stands for. A name gets its value where it is first met and means the same from there on. */
export class Placeholders {
  readonly #values = new Map<string, string>();

  /** @throws RangeError a name without a value */
  fill(text: string): string {
    return text.replaceAll(PLACEHOLDER, (_, name: string) => {
      const value = this.#values.get(name);
      if (value === undefined) throw new RangeError(`<${name}> has no value yet`);
      return value;
    });
  }

  /** What is expected, its new names filled in with what they stand for in what came. */
  resolve(expected: unknown, actual: unknown): unknown {
    if (typeof expected === "string") {
      if (typeof actual === "string") this.#learn(expected, actual);
      return expected.replaceAll(PLACEHOLDER, (whole, name: string) => this.#values.get(name) ?? whole);
    }
    if (Array.isArray(expected)) {
      const items: unknown[] = Array.isArray(actual) ? actual : [];
      return expected.map((each, index) => this.resolve(each, items[index]));
    }
    if (typeof expected !== "object" || expected === null) return expected;
    const fields = new Map(Object.entries(actual ?? {}));
    return Object.fromEntries(
      Object.entries(expected).map(([key, value]) => [key, this.resolve(value, fields.get(key))]),
    );
  }

  #learn(expected: string, actual: string): void {
    const names: string[] = [];
    const pattern = expected
      .split(/(<[a-z]+>)/)
      .map((part) => {
        const name = /^<([a-z]+)>$/.exec(part)?.[1];
        const known = name === undefined ? part : this.#values.get(name);
        if (name !== undefined && known === undefined) names.push(name);
        return known === undefined ? "(\\S+)" : known.replaceAll(/[^\w]/g, "\\$&");
      })
      .join("");
    const found = new RegExp(`^${pattern}$`).exec(actual);
    for (const [index, name] of names.entries()) {
      const value = found?.[index + 1];
      if (value !== undefined) this.#values.set(name, value);
    }
  }
}
