import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { colour } from "./colours.ts";
import type { Columns } from "./series.ts";

/** Of no point, and of one. */
function extent(_plot: uPlot, low: number | null, high: number | null): uPlot.Range.MinMax {
  const start = low ?? 0;
  return [start, Math.max(high ?? 0, start + 1)];
}

/** Of a chart that is empty yet the axis is that of 1970. */
function timeOfDay(seconds: number): string {
  return seconds < 1e9 ? "" : new Date(seconds * 1000).toTimeString().slice(0, 8);
}

/** What is drawn. */
export interface ChartOptions {
  /** Names of colours, one a line. */
  readonly colours: readonly string[];
  readonly height: number;
  /** What stands at the axis. */
  readonly label: (value: number) => string;
  /** Told which row is pointed at; null: none. */
  readonly onPoint: (row: number | null) => void;
  /** Where the scale begins: at 0; close to the values; or it has steps of ten, so that one high value hides no other. */
  readonly scale: Scale;
}

export type Scale = "zero" | "close" | "tens";

/** What an axis of values shows of them. */
const ranges: Readonly<Record<Scale, (low: number, high: number) => uPlot.Range.MinMax>> = {
  zero: (_low, high) => [0, Math.max(high * 1.1, 1)],
  close: (low, high) => {
    const margin = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
    return [low - margin, high + margin];
  },
  // Whole steps, two at least.
  tens: (low, high) => {
    const from = Math.floor(Math.log10(Math.max(low, SMALLEST)));
    const to = Math.ceil(Math.log10(Math.max(high, SMALLEST)));
    return [10 ** from, 10 ** Math.max(to, from + 2)];
  },
};
/** uPlot's number for it: the names of its enumeration are for its own build only. */
const LOGARITHMIC = 3 as unknown as uPlot.Scale.Distr;
/** What no logarithm is taken below. */
const SMALLEST = 1e-3;

/** Powers of ten. */
function steps(low: number, high: number): number[] {
  const from = Math.round(Math.log10(low));
  return Array.from({ length: Math.round(Math.log10(high)) - from + 1 }, (_, i) => 10 ** (from + i));
}

/** Draws lines over time in an element, as wide as that. */
export class ChartEngine {
  readonly #plot: uPlot;
  readonly #watcher: ResizeObserver;

  constructor(element: HTMLElement, { colours, height, label, onPoint, scale }: ChartOptions) {
    const axis = {
      stroke: () => colour("muted"),
      grid: { stroke: () => colour("line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    // Of a chart that is empty yet there is neither.
    const range = (_plot: uPlot, low: number | null, high: number | null): uPlot.Range.MinMax =>
      ranges[scale](low ?? 1, high ?? 1);
    this.#plot = new uPlot(
      {
        width: Math.max(element.clientWidth, 100),
        height,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 } },
        scales: {
          x: { time: true, range: extent },
          y: { range, ...(scale === "tens" && { distr: LOGARITHMIC }) },
        },
        axes: [
          { ...axis, size: 26, space: 70, values: (_plot, ticks) => ticks.map(timeOfDay) },
          {
            ...axis,
            size: 58,
            values: (_plot, ticks) => ticks.map(label),
            // Only whole steps have a line and a number.
            ...(scale === "tens" && {
              splits: (_plot, _axis, low, high) => steps(low, high),
              filter: (_plot, splits) => splits,
            }),
          },
        ],
        series: [
          {},
          ...colours.map((name, index) => ({
            stroke: () => colour(name),
            width: 1.5,
            points: { show: false },
            ...(index === 0 && scale === "zero" && { fill: () => colour("accent-faint") }),
          })),
        ],
        hooks: { setCursor: [({ cursor }) => onPoint(cursor.idx ?? null)] },
      },
      [[], ...colours.map(() => [])],
      element,
    );
    this.#watcher = new ResizeObserver(() => {
      if (element.clientWidth > 0) this.#plot.setSize({ width: element.clientWidth, height });
    });
    this.#watcher.observe(element);
  }

  draw(columns: Columns): void {
    this.#plot.setData(columns as unknown as uPlot.AlignedData);
  }

  close(): void {
    this.#watcher.disconnect();
    this.#plot.destroy();
  }
}
