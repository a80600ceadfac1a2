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
  /** Lines begin at 0. */
  readonly fromZero: boolean;
}

/** Draws lines over time in an element, as wide as that. */
export class ChartEngine {
  readonly #plot: uPlot;
  readonly #watcher: ResizeObserver;

  constructor(element: HTMLElement, { colours, height, label, onPoint, fromZero }: ChartOptions) {
    const axis = {
      stroke: () => colour("muted"),
      grid: { stroke: () => colour("line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    const range = (_plot: uPlot, low: number, high: number): uPlot.Range.MinMax => {
      if (fromZero) return [0, Math.max(high * 1.1, 1)];
      const margin = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
      return [low - margin, high + margin];
    };
    this.#plot = new uPlot(
      {
        width: Math.max(element.clientWidth, 100),
        height,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 } },
        scales: {
          x: { time: true, range: extent },
          y: { range },
        },
        axes: [
          { ...axis, size: 26, space: 70, values: (_plot, ticks) => ticks.map(timeOfDay) },
          { ...axis, size: 54, values: (_plot, ticks) => ticks.map(label) },
        ],
        series: [
          {},
          ...colours.map((name, index) => ({
            stroke: () => colour(name),
            width: 1.5,
            points: { show: false },
            ...(index === 0 && fromZero && { fill: () => colour("accent-faint") }),
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
