import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { clock, number } from "./format.ts";
import type { Entry } from "./history.ts";
import { found, KEPT_A_WINDOW, saved, WINDOW } from "./history.ts";
import { Choice } from "./parts.tsx";
import type { PayloadView } from "./payload.ts";
import { views, wholeOf } from "./payload.ts";
import { Sender } from "./sender.tsx";
import type { Talk } from "./talk.ts";

/** Height of a row, as in style.css. */
const ROW = 24;
/** Rows beyond what is seen, on both sides. */
const MARGIN = 10;

const marks = { from: "◂", to: "▸", note: "·" } as const;
const words = { from: "from the guest", to: "to the guest", note: "note" } as const;

/**
 * What goes over a channel, and what is sent.
 * @param refused why nothing may be sent
 */
export function Console({ talk, refused }: { talk: Talk; refused: string | undefined }): JSX.Element {
  const { history } = talk;
  const view = useSignal<PayloadView>("text");
  const search = useSignal("");
  const paused = useSignal<readonly Entry[] | undefined>(undefined);
  const selected = useSignal<Entry | undefined>(undefined);
  // Drawn again when there is more.
  void talk.changes.value;
  const entries = paused.value ?? history.entries();
  const shown = found(entries, search.value, view.value);
  const messages = shown.reduce((sum, { kind }) => sum + (kind === "note" ? 0 : 1), 0);

  const save = (): void => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([saved(shown)], { type: "application/x-ndjson" }));
    link.download = `${talk.path.split("/").slice(3).join("-")}.jsonl`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <div class="console">
      <div class="bar">
        <Choice
          legend="Payload as"
          options={views}
          value={view.value}
          onChange={(value) => {
            view.value = value;
          }}
        />
        <input
          type="search"
          placeholder="Search"
          aria-label="Search messages"
          value={search}
          onInput={({ currentTarget }) => {
            search.value = currentTarget.value;
          }}
        />
        <button
          type="button"
          class="quiet"
          aria-pressed={paused.value !== undefined}
          onClick={() => {
            paused.value = paused.value === undefined ? history.entries() : undefined;
          }}
        >
          Pause
        </button>
        <button
          type="button"
          class="quiet"
          onClick={() => {
            history.clear();
            paused.value = undefined;
            selected.value = undefined;
            talk.changed();
          }}
        >
          Clear
        </button>
        <button type="button" class="quiet" disabled={shown.length === 0} onClick={save}>
          Save
        </button>
      </div>
      <p class="hint tally">
        showing <b>{number(messages)}</b> of <b>{number(history.total)}</b> messages
        {history.sampledOut > 0 &&
          `; a sample: of more than ${number((KEPT_A_WINDOW * 1000) / WINDOW)} a second ${number(history.sampledOut)} were only counted`}
        {history.gone > 0 && `; ${number(history.gone)} older ones are not kept any more`}
        {talk.dropped.value > 0 &&
          `; ${number(talk.dropped.value)} more were dropped on their way: more than this page takes`}
        {paused.value !== undefined && "; paused"}
      </p>
      <Rows
        entries={shown}
        view={view.value}
        following={paused.value === undefined}
        selected={selected.value}
        onSelect={(entry) => {
          selected.value = entry;
        }}
      />
      {selected.value !== undefined && <Detail entry={selected.value} view={view.value} />}
      <Sender talk={talk} refused={refused} />
    </div>
  );
}

interface RowsProps {
  entries: readonly Entry[];
  view: PayloadView;
  following: boolean;
  selected: Entry | undefined;
  onSelect: (entry: Entry) => void;
}

/** A list of which only what is seen is there. It follows its end until it is scrolled away from that. */
function Rows({ entries, view, following, selected, onSelect }: RowsProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const atEnd = useRef(true);
  useEffect(() => {
    const element = box.current;
    if (element !== null && following && atEnd.current) element.scrollTop = element.scrollHeight;
  }, [entries, following]);
  const height = box.current?.clientHeight ?? 400;
  const first = Math.max(0, Math.floor(top.value / ROW) - MARGIN);
  const part = entries.slice(first, first + Math.ceil(height / ROW) + 2 * MARGIN);
  const step = (by: number): void => {
    const at = selected === undefined ? entries.length - 1 : entries.indexOf(selected) + by;
    const next = entries[Math.min(Math.max(at, 0), entries.length - 1)];
    if (next === undefined || box.current === null) return;
    onSelect(next);
    const place = entries.indexOf(next) * ROW;
    const { scrollTop, clientHeight } = box.current;
    if (place < scrollTop) box.current.scrollTop = place;
    else if (place + ROW > scrollTop + clientHeight) box.current.scrollTop = place + ROW - clientHeight;
  };
  return (
    <div
      ref={box}
      class="log"
      role="listbox"
      aria-label="Messages"
      tabIndex={0}
      aria-activedescendant={selected !== undefined && part.includes(selected) ? idOf(selected) : undefined}
      onScroll={({ currentTarget }) => {
        top.value = currentTarget.scrollTop;
        atEnd.current =
          currentTarget.scrollTop + currentTarget.clientHeight >= currentTarget.scrollHeight - ROW;
      }}
      onKeyDown={(event) => {
        if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
        event.preventDefault();
        step(event.key === "ArrowDown" ? 1 : -1);
      }}
    >
      <div role="presentation" style={{ height: `${entries.length * ROW}px` }}>
        <div role="presentation" style={{ transform: `translateY(${first * ROW}px)` }}>
          {part.map((entry) => (
            <div
              key={entry.serial}
              id={idOf(entry)}
              class={`row ${entry.kind}`}
              role="option"
              tabIndex={-1}
              aria-selected={entry === selected}
              onClick={() => onSelect(entry)}
              onKeyDown={() => {}}
            >
              <span class="number">{entry.kind === "note" ? "" : entry.number}</span>
              <time class="time">{clock(entry.at)}</time>
              <span class="mark" aria-label={words[entry.kind]} role="img">
                {marks[entry.kind]}
              </span>
              <span class="source wide">{entry.source ?? ""}</span>
              <span class="length">{entry.kind === "note" ? "" : entry.data.length}</span>
              <span class="payload">{entry.line(view)}</span>
            </div>
          ))}
        </div>
      </div>
    </div>
  );
}

function idOf({ serial }: Entry): string {
  return `entry-${serial}`;
}

function Detail({ entry, view }: { entry: Entry; view: PayloadView }): JSX.Element {
  const source = entry.source === undefined ? "" : `, from address ${entry.source}`;
  return (
    <section class="detail" aria-label="The selected message">
      <p class="hint">
        {words[entry.kind]}, {clock(entry.at)}, {number(entry.data.length)} bytes{source}
      </p>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with keys */}
      <pre tabIndex={0}>{wholeOf(entry.data, entry.kind === "note" ? "text" : view)}</pre>
    </section>
  );
}
