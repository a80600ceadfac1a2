/** Figures of one measurement by their names, which say the unit: perSecond, p50us, cpuServer. */
export type Sample = Readonly<Record<string, number>>;

export interface BenchOptions {
  /** Milliseconds of one measurement, after a third of that, but at least 300 ms, as warm-up. */
  measureMs: number;
}

/** A scenario that has been set up: what is compared, each as a function that measures once. */
export interface Running {
  readonly variants: Readonly<Record<string, () => Promise<Sample>>>;
  /** What the figures do not say, known once all rounds are over; shown with the result. */
  notes?(): string[];
  stop(): Promise<void>;
}

export interface Scenario {
  /** As in `--only` and in docs/performance: small letters, digits and hyphens. */
  readonly name: string;
  readonly title: string;
  /** The figure that the chart shows. */
  readonly figure: { readonly name: string; readonly label: string };
  /** Part of the short form, which has to end soon. */
  readonly short?: boolean;
  /** Why it cannot run here; undefined: it can. */
  missing?(): string | undefined;
  start(options: BenchOptions): Promise<Running>;
}

/** A load: `clients` connections, `inFlight` messages of `size` bytes outstanding on each. */
export interface Shape {
  readonly clients: number;
  readonly size: number;
  readonly inFlight: number;
}
