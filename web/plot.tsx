import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Chart } from "./chart.tsx";
import { isCounting, MOST_FIELDS, numericFields } from "./fields.ts";
import { number } from "./format.ts";
import { jsonOf, printableName } from "./payload.ts";
import { Sender } from "./sender.tsx";
import { Series } from "./series.ts";
import type { Talk } from "./talk.ts";

/** Points of a line. */
const MOST_POINTS = 1200;
/** Milliseconds between two points: of more messages than that a sample is drawn. */
const APART = 20;

interface PlotProps {
  talk: Talk;
  /** What the guest is to be told first. */
  start: string | undefined;
  /** Whether it is known what may be sent, and why nothing may. */
  settled: boolean;
  refused: string | undefined;
}

/** Draws the numbers in JSON messages, one small chart a field: their scales have nothing to do with each other. */
export function Plot({ talk, start, settled, refused }: PlotProps): JSX.Element {
  const fields = useRef(new Map<string, Series>());
  const hidden = useSignal<ReadonlySet<string>>(new Set());
  const seen = useRef({ messages: 0, drawn: 0, at: Number.NEGATIVE_INFINITY });
  useEffect(
    () =>
      talk.onMessage(({ data }) => {
        const now = performance.timeOrigin + performance.now();
        const told = seen.current;
        told.messages++;
        if (now - told.at < APART) return;
        const values = numericFields(jsonOf(data));
        if (values.size === 0) return;
        told.at = now;
        told.drawn++;
        for (const [name, value] of values) {
          const known = fields.current.get(name);
          if (known === undefined && fields.current.size >= MOST_FIELDS) continue;
          if (known === undefined && isCounting(name)) hidden.value = new Set([...hidden.value, name]);
          const series = known ?? new Series(1, MOST_POINTS);
          fields.current.set(name, series);
          series.push(now / 1000, [value]);
        }
      }),
    [talk],
  );
  // A sensor of the emulated guest says nothing before it is asked.
  const mayAsk = settled && refused === undefined;
  const wanted = mayAsk && talk.connection.value === "open" && !talk.asked.value;
  useEffect(() => {
    if (start !== undefined && wanted) void talk.ask(start);
  }, [talk, start, wanted]);
  const version = talk.changes.value;
  const names = [...fields.current.keys()];
  const toggle = (name: string): void => {
    const next = new Set(hidden.value);
    if (!next.delete(name)) next.add(name);
    hidden.value = next;
  };
  const { messages, drawn } = seen.current;
  return (
    <>
      {names.length === 0 ? (
        <p class="hint">
          Waiting for JSON with numbers in it, such as {'{"temperature": 21.5}'}. {number(messages)} messages
          came.
        </p>
      ) : (
        <>
          <fieldset class="bar">
            <legend class="hidden">Fields</legend>
            {names.map((name) => (
              <label key={name}>
                <input type="checkbox" checked={!hidden.value.has(name)} onChange={() => toggle(name)} />{" "}
                {printableName(name)}
              </label>
            ))}
          </fieldset>
          <p class="hint tally">
            drawing <b>{number(drawn)}</b> of <b>{number(messages)}</b> messages: {number(1000 / APART)} a
            second and {MOST_FIELDS} fields at most
            {talk.dropped.value > 0 &&
              `; ${number(talk.dropped.value)} more were dropped on their way: more than this page takes`}
          </p>
          <div class="charts">
            {names
              .filter((name) => !hidden.value.has(name))
              .map((name) => (
                <Chart
                  key={name}
                  title={printableName(name)}
                  lines={["now"]}
                  columns={fields.current.get(name)?.columns ?? []}
                  version={version}
                  label={(value) => (value === null || value === undefined ? "–" : number(value, 3))}
                  height={160}
                  scale="close"
                />
              ))}
          </div>
        </>
      )}
      <Sender talk={talk} refused={refused} />
    </>
  );
}
