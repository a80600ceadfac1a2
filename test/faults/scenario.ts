/** How much of a fault: as a test, as a look, as in the table of docs/reliability.md. */
export const scales = ["test", "short", "full"] as const;
export type Scale = (typeof scales)[number];

/** A fault that the bridge is to survive. Each is a file of `scenarios/`, which exports it as `scenario`. */
export interface Scenario {
  /** What happens: a cell of the table. */
  readonly fault: string;
  /** When that is survived: a cell of the table. */
  readonly passes: string;
  /**
   * Lets it happen, in a process of its own, and ends whatever it has started. At the scale `test` it takes a few
   * seconds.
   */
  run(scale: Scale): Promise<Outcome>;
}

export interface Outcome {
  /** Figures, in a few words. */
  readonly measured: string;
  /** What is wrong however fast the machine is. */
  readonly problems: readonly string[];
  /** What took longer than it may, or more memory: no matter to a test that runs beside others. */
  readonly slow?: readonly string[];
  /** Why it cannot run on this machine. */
  readonly skipped?: string;
}

/** What became of a scenario. */
export interface Result extends Outcome {
  readonly name: string;
  readonly fault: string;
  readonly passes: string;
  readonly seconds: number;
}

export function isPassed({ problems, slow = [] }: Outcome): boolean {
  return problems.length === 0 && slow.length === 0;
}
