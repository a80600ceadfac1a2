import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ClientFrame, events, MuxClientFrame, MuxServerFrame, ServerFrame } from "../../schemas/index.ts";
import type { Transcript } from "../support/transcript.ts";
import { contentOf, parseTranscripts } from "../support/transcript.ts";
import { expectReplay } from "./replay.ts";

const page = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8");
const transcripts = parseTranscripts(page);

/** The transcript of this title. */
function transcript(title: string): Transcript {
  const found = transcripts.find((each) => each.title === `Transcript of ${title}`);
  if (found === undefined) throw new Error(`there is no transcript of ${title}`);
  return found;
}

/** Types of the frames that one side sends in a transcript. */
function typesIn(title: string, mark: ">" | "<"): Set<unknown> {
  const values = transcript(title).lines.map((line) =>
    line.mark === mark ? contentOf(line.text) : undefined,
  );
  return new Set(values.map((value) => (value as { type?: unknown } | undefined)?.type));
}

function typesOf(union: { options: readonly { shape: { type: { value: string } } }[] }): string[] {
  return union.options.map(({ shape }) => shape.type.value);
}

describe("docs/protocol.md: the bridge says what is written", () => {
  test.each(transcripts.map((each) => [each.title, each] as const))("%s", async (_title, each) => {
    await expectReplay(each);
  });

  test.each([
    ["rpmsg.v1.json", ClientFrame, ServerFrame],
    ["rpmsg.v1.mux", MuxClientFrame, MuxServerFrame],
  ] as const)("every frame of %s is shown", (title, fromClient, fromBridge) => {
    expect(typesIn(title, ">")).toEqual(new Set([undefined, ...typesOf(fromClient)]));
    expect(typesIn(title, "<")).toEqual(new Set([undefined, ...typesOf(fromBridge)]));
  });

  test("every event is shown, raw channels and requests are", () => {
    const lines = transcript("events").lines.map(({ text }) => text);
    for (const name of Object.keys(events)) expect(lines).toContain(`event: ${name}`);
    expect(transcript("rpmsg.v1.raw").lines).not.toHaveLength(0);
    expect(transcript("HTTP requests").lines).not.toHaveLength(0);
  });
});

describe("a transcript that is not what the bridge says", () => {
  const hello = `{"type": "hello", "protocol": "rpmsg.v1.mux", "instance": "<instance>"}`;
  const talk = (...lines: string[]): Transcript => {
    const all = [
      ">> open /ws/v1 rpmsg.v1.mux",
      "<< open rpmsg.v1.mux",
      ...lines,
      ">> close 1000",
      "<< close 1000",
    ];
    const [parsed] = parseTranscripts(`# Talk\n\`\`\`transcript\n${all.join("\n")}\n\`\`\`\n`);
    if (parsed === undefined) throw new Error("no transcript");
    return parsed;
  };
  const ping = ['> {"type": "ping"}', '< {"type": "pong"}'];

  test("but this one is", async () => {
    await expect(expectReplay(talk(`< ${hello}`, ...ping))).resolves.toBeUndefined();
  });

  test.each([
    ["has another value", [`< ${hello.replace("mux", "raw")}`]],
    ["has a field too many", [`< ${hello.replace("}", ', "version": 1}')}`]],
    ["has a field too few", [`< ${hello.replace(', "instance": "<instance>"', "")}`]],
    ["has a frame too few", ping],
    ["has a text for bytes", ["< 00"]],
    ["has a name for two values", [`< ${hello.replace('"rpmsg.v1.mux"', '"<instance>"')}`]],
  ])("%s", async (_what, lines) => {
    await expect(expectReplay(talk(...lines))).rejects.toThrow("to strictly equal");
  });

  test("has a close that does not come as it is written", async () => {
    const { lines } = talk(`< ${hello}`);
    const other = lines.map((line) =>
      line.mark === "<<" ? { ...line, text: line.text.replace("1000", "1001") } : line,
    );
    await expect(expectReplay({ title: "", lines: other })).rejects.toThrow("to strictly equal");
  });
});

test("a line that is none is named", () => {
  expect(() => parseTranscripts("```transcript\n> 00\n* 00\n```\n")).toThrow("line 3 is no line");
});
