import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { ChartEngine, Scale } from "./chart-engine.ts";
import { repaint } from "./colours.ts";
import { TroubleNote } from "./parts.tsx";
import type { Columns } from "./series.ts";
import type { Trouble } from "./trouble.ts";
import { notLoaded } from "./trouble.ts";

interface ChartProps {
  title: string;
  /** Names of the lines. */
  lines: readonly string[];
  columns: Columns;
  /** Changes when there is more in `columns`. */
  version: number;
  label: (value: number | null | undefined) => string;
  height?: number;
  scale?: Scale;
  /** What is said below it. */
  children?: ComponentChildren;
}

const COLOURS = ["accent", "second"];

/** Lines over time, with the values that are pointed at, or the latest ones. What draws them is loaded here. */
export function Chart(props: ChartProps): JSX.Element {
  const { title, lines, columns, version, label, height = 120, scale = "zero" } = props;
  const place = useRef<HTMLDivElement>(null);
  const engine = useRef<ChartEngine | undefined>(undefined);
  const latest = useRef(columns);
  const pointed = useSignal<number | null>(null);
  const trouble = useSignal<Trouble | undefined>(undefined);
  latest.current = columns;

  useEffect(() => {
    let gone = false;
    const open = async (): Promise<void> => {
      const { ChartEngine: Engine } = await import("./chart-engine.ts");
      if (gone || place.current === null) return;
      const colours = lines.map((_, i) => COLOURS[i % COLOURS.length] as string);
      engine.current = new Engine(place.current, {
        ...{ colours, height, label, scale },
        onPoint: (row) => {
          pointed.value = row;
        },
      });
      engine.current.draw(latest.current);
    };
    open().catch(() => {
      trouble.value = notLoaded("The chart");
    });
    return () => {
      gone = true;
      engine.current?.close();
      engine.current = undefined;
    };
  }, []);

  const painted = repaint.value;
  useEffect(() => engine.current?.draw(columns), [version, painted]);

  const row = pointed.value ?? (columns[0]?.length ?? 0) - 1;
  const values = lines.map((_, i) => label(columns[i + 1]?.[row]));
  return (
    <figure class="chart">
      <figcaption>
        <h3>{title}</h3>
        {lines.map((line, i) => (
          <span key={line} class={`key key-${COLOURS[i % COLOURS.length]}`}>
            {line} <b>{values[i]}</b>
          </span>
        ))}
      </figcaption>
      <div
        ref={place}
        role="img"
        aria-label={`${title}: ${lines.map((line, i) => `${line} ${values[i]}`).join(", ")}`}
      />
      {props.children}
      <TroubleNote trouble={trouble.value} />
    </figure>
  );
}
