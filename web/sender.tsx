import { useSignal } from "@preact/signals";
import type { JSX, TargetedKeyboardEvent } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { number } from "./format.ts";
import { pause } from "./pace.ts";
import { Choice, Refused, TroubleNote } from "./parts.tsx";
import { cut, parseHex } from "./payload.ts";
import type { Talk } from "./talk.ts";
import { troubleOf } from "./trouble.ts";

const kinds = ["text", "hex", "file"] as const;
type Kind = (typeof kinds)[number];

/** Lines that the arrow up brings back. */
const MOST_LINES = 100;
/** Milliseconds between two messages that are repeated, at least. */
const SHORTEST = 1;
const MOST_TIMES = 1_000_000;

/**
 * Sends: a line, bytes or a file, once or again and again.
 * @param refused why it may not
 */
export function Sender({ talk, refused }: { talk: Talk; refused: string | undefined }): JSX.Element {
  const kind = useSignal<Kind>("text");
  const text = useSignal("");
  const newline = useSignal(false);
  const file = useSignal<File | undefined>(undefined);
  const times = useSignal(1);
  const interval = useSignal(1000);
  const progress = useSignal("");
  const running = useSignal<AbortController | undefined>(undefined);
  const lines = useRef<string[]>([]);
  const back = useRef(0);
  useEffect(() => () => running.value?.abort(), []);

  const messages = async (): Promise<(string | Uint8Array)[]> => {
    if (kind.value === "hex") return [parseHex(text.value)];
    if (kind.value === "text") return [text.value + (newline.value ? "\n" : "")];
    if (file.value === undefined) throw new Error("choose a file first");
    // Nor is it known how long a message may be.
    if (talk.mtu.value === 0) throw new Error("there is no connection yet: connect first");
    return cut(new Uint8Array(await file.value.arrayBuffer()), talk.mtu.value);
  };
  const submit = async (): Promise<void> => {
    const abort = new AbortController();
    running.value = abort;
    progress.value = "";
    let sent = 0;
    try {
      const all = await messages();
      if (kind.value !== "file") remember(lines.current, text.value);
      back.current = 0;
      const count = all.length * times.value;
      const start = performance.now();
      rounds: for (let round = 0; round < times.value; round++) {
        if (round > 0) await pause(interval.value, abort.signal);
        for (const message of all) {
          if (abort.signal.aborted || !(await talk.send(message))) break rounds;
          sent++;
          progress.value =
            count === 1
              ? `sent in ${(performance.now() - start).toFixed(1)} ms`
              : `sent ${number(sent)} of ${number(count)}`;
        }
      }
      if (kind.value === "text" && times.value === 1 && sent === 1) text.value = "";
    } catch (error) {
      talk.failure.value = troubleOf(error);
    }
    running.value = undefined;
  };
  const recall = (event: TargetedKeyboardEvent<HTMLInputElement>): void => {
    const by = event.key === "ArrowUp" ? 1 : event.key === "ArrowDown" ? -1 : 0;
    if (by === 0) return;
    event.preventDefault();
    back.current = Math.min(Math.max(back.current + by, 0), lines.current.length);
    text.value = back.current === 0 ? "" : (lines.current.at(-back.current) ?? "");
  };

  return (
    <form
      class="sender"
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <Refused reason={refused} id="send-refused" />
      <fieldset
        disabled={refused !== undefined}
        aria-describedby={refused === undefined ? undefined : "send-refused"}
      >
        <legend class="hidden">A message to the guest</legend>
        <div class="bar">
          <Choice
            legend="Send"
            options={kinds}
            value={kind.value}
            onChange={(value) => {
              kind.value = value;
            }}
          />
          {kind.value === "file" ? (
            <input
              type="file"
              aria-label="File to send"
              onChange={({ currentTarget }) => {
                file.value = currentTarget.files?.[0];
              }}
            />
          ) : (
            <input
              class="message"
              aria-label="Message"
              placeholder={kind.value === "hex" ? "01 ff 2a" : "a message; arrow up brings the last one back"}
              autocomplete="off"
              spellcheck={false}
              value={text}
              onInput={({ currentTarget }) => {
                text.value = currentTarget.value;
              }}
              onKeyDown={recall}
            />
          )}
          {running.value === undefined ? (
            <button type="submit">Send</button>
          ) : (
            <button type="button" onClick={() => running.value?.abort()}>
              Stop
            </button>
          )}
        </div>
        <div class="bar">
          {kind.value === "text" && (
            <label>
              <input
                type="checkbox"
                checked={newline}
                onChange={({ currentTarget }) => {
                  newline.value = currentTarget.checked;
                }}
              />{" "}
              with a line end
            </label>
          )}
          <label>
            <input
              type="number"
              min={1}
              max={MOST_TIMES}
              value={times}
              onChange={({ currentTarget }) => {
                times.value = settled(currentTarget, 1);
              }}
            />{" "}
            times
          </label>
          <label>
            every{" "}
            <input
              type="number"
              min={SHORTEST}
              max={3_600_000}
              value={interval}
              onChange={({ currentTarget }) => {
                interval.value = settled(currentTarget, 1000);
              }}
            />{" "}
            ms
          </label>
          <span class="hint" role="status">
            {progress}
          </span>
        </div>
      </fieldset>
      {kind.value === "file" && (
        <p class="hint">
          A file that is longer than a message ({number(talk.mtu.value)} bytes) is sent as several, in order.
        </p>
      )}
      <TroubleNote trouble={talk.failure.value} />
    </form>
  );
}

function remember(lines: string[], line: string): void {
  if (line === "" || lines.at(-1) === line) return;
  lines.push(line);
  if (lines.length > MOST_LINES) lines.shift();
}

/** What a field has, when it is left, as a whole number within bounds, which it then shows. */
function settled(field: HTMLInputElement, initial: number): number {
  const given = Math.trunc(field.valueAsNumber);
  const value = Math.min(
    Math.max(Number.isNaN(given) ? initial : given, Number(field.min)),
    Number(field.max),
  );
  field.value = String(value);
  return value;
}
