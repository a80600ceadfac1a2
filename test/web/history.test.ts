import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { found, History, KEPT_A_WINDOW, MOST_BYTES, MOST_KEPT, saved, WINDOW } from "../../web/history.ts";

const bytes = (text: string) => () => new TextEncoder().encode(text);

describe("the history of a channel", () => {
  test("keeps a bounded number of messages a window, counts all, and says how many it only counted", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 2000 }), (gaps) => {
        const history = new History();
        let now = 1000;
        for (const gap of gaps) {
          now += gap;
          history.add("from", now, 1, bytes("x"));
        }
        const entries = history.entries();
        expect(history.total).toBe(gaps.length);
        expect(entries.length + history.sampledOut).toBe(gaps.length);
        // In no time of a window's length are there more than two windows have.
        for (const [i, { at }] of entries.entries()) {
          const last = entries[i + 2 * KEPT_A_WINDOW];
          if (last !== undefined) expect(last.at - at).toBeGreaterThanOrEqual(WINDOW);
        }
      }),
    );
  });

  test("makes the bytes of a message only where it keeps them", () => {
    const history = new History();
    let made = 0;
    for (let i = 0; i < 1000; i++) {
      history.add("from", 5000, 1, () => {
        made++;
        return new Uint8Array(1);
      });
    }
    expect([made, history.total, history.sampledOut]).toEqual([KEPT_A_WINDOW, 1000, 1000 - KEPT_A_WINDOW]);
  });

  test("keeps the latest, with their numbers", () => {
    const history = new History();
    const count = 3 * MOST_KEPT;
    for (let i = 1; i <= count; i++) history.add("to", i * WINDOW, undefined, bytes(String(i)));
    const entries = history.entries();
    expect(entries.length).toBe(MOST_KEPT);
    expect([entries[0]?.number, entries.at(-1)?.number]).toEqual([count - MOST_KEPT + 1, count]);
    expect(history.gone).toBe(count - MOST_KEPT);
  });

  test("keeps no more bytes than it may, and counts what had to go", () => {
    const LONGEST = 65_519;
    const history = new History();
    const count = 1000;
    for (let i = 1; i <= count; i++) {
      history.add("from", i * WINDOW, 1, () => new Uint8Array(LONGEST));
      const bytes = history.entries().reduce((sum, { data }) => sum + data.length, 0);
      expect(bytes).toBeLessThanOrEqual(MOST_BYTES);
    }
    const kept = Math.floor(MOST_BYTES / LONGEST);
    expect([history.entries().length, history.gone]).toEqual([kept, count - kept]);
    history.clear();
    for (let i = 1; i <= kept; i++) history.add("from", i * WINDOW, 1, () => new Uint8Array(LONGEST));
    expect([history.entries().length, history.gone]).toEqual([kept, 0]);
  });

  test("an entry shows itself in any view, in the one of before again", () => {
    const history = new History();
    history.add("to", 0, undefined, bytes('{"a": 1}'));
    history.note(0, "a note");
    const [entry, note] = history.entries();
    for (let i = 0; i < 2; i++) {
      expect((["text", "json", "hex"] as const).map((view) => entry?.line(view))).toEqual([
        '{"a": 1}',
        '{"a":1}',
        "7b 22 61 22 3a 20 31 7d",
      ]);
    }
    expect(note?.line("hex")).toBe("a note");
  });

  test("every entry has a serial of its own, notes on one message too, and after it was cleared", () => {
    const history = new History();
    const serials: (number | undefined)[] = [];
    for (let i = 0; i < 2; i++) {
      history.add("to", 0, undefined, bytes("a"));
      history.note(0, "one");
      history.note(0, "two");
      serials.push(...history.entries().map(({ serial }) => serial));
      history.clear();
    }
    expect(new Set(serials).size).toBe(6);
  });

  test("a clock that is set back does not end it", () => {
    const history = new History();
    for (let i = 0; i < KEPT_A_WINDOW; i++) history.add("from", 9000, 1, bytes("a"));
    history.add("from", 1000, 1, bytes("b"));
    expect(history.entries().at(-1)?.line("text")).toBe("b");
  });

  test("notes are kept always, and are no messages", () => {
    const history = new History();
    for (let i = 0; i < 200; i++) history.note(1, "again");
    expect([history.entries().length, history.total]).toEqual([200, 0]);
  });

  test("is searched in what is shown, and saved with everything", () => {
    const history = new History();
    history.add("to", 0, undefined, bytes("Start 10"));
    history.add("from", 0, 1026, () => Uint8Array.of(0xff, 0));
    history.note(0, "generation 1 → 2");
    const entries = history.entries();
    expect(found(entries, "START", "text").map(({ number }) => number)).toEqual([1]);
    expect(found(entries, "ff 00", "hex").map(({ number }) => number)).toEqual([2]);
    expect(found(entries, " ", "text")).toBe(entries);
    expect(
      saved(entries)
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual([
      {
        number: 1,
        time: "1970-01-01T00:00:00.000Z",
        kind: "to",
        length: 8,
        base64: "U3RhcnQgMTA=",
        text: "Start 10",
      },
      {
        number: 2,
        time: "1970-01-01T00:00:00.000Z",
        kind: "from",
        source: 1026,
        length: 2,
        base64: "/wA=",
        text: "\ufffd\0",
      },
      { number: 2, time: "1970-01-01T00:00:00.000Z", kind: "note", note: "generation 1 → 2" },
    ]);
  });
});
