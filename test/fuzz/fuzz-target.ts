import { setImmediate as nextTurn } from "node:timers/promises";
import { Random } from "../support/random.ts";

/** Something that takes hostile input, and what has to hold of it. */
export interface FuzzTarget {
  /** What `--target` and a test call it. */
  readonly name: string;
  /** Cases of the short form, which runs as a test. */
  readonly shortCases: number;
  /** Makes what the cases of a run share: memory, descriptors, threads. */
  open(): FuzzSession | Promise<FuzzSession>;
}

export interface FuzzSession {
  /**
   * Runs one case; throws where something is not as it has to be.
   *
   * `random` decides all of it, and nothing is left of the case before, so that a case comes again by its seed alone.
   * @returns what became of the input: `accepted`, or the code with which it was rejected; counted and printed
   */
  run(random: Random): string | Promise<string>;
  /** What the session has done and used so far, in a few words, where cases alone do not tell. */
  figures?(): string;
  /** Frees what `open` made; throws where something leaked. */
  close(): void | Promise<void>;
}

export interface FuzzResult {
  cases: number;
  /** Cases by what became of them. */
  outcomes: Map<string, number>;
  seconds: number;
  /** As the session tells them at its end, closed; empty where it tells none. */
  figures: string;
  /** The first finding ends the run. `seed` is that of the case, undefined where opening or closing failed. */
  finding: { seed: number | undefined; error: unknown } | undefined;
}

/** Milliseconds of cases after which signals and timers get their turn. */
const TURN = 50;

/**
 * Runs cases of a target until one finds something. Case n has the seed `seed` + n.
 * @param more whether another case shall follow so many; `next` is its seed
 */
export async function runTarget(
  target: FuzzTarget,
  seed: number,
  more: (cases: number, next: number) => boolean,
): Promise<FuzzResult> {
  const start = performance.now();
  const result: FuzzResult = { cases: 0, outcomes: new Map(), seconds: 0, figures: "", finding: undefined };
  // Most input is rejected with an error, and its stack would cost more than the rest of the case.
  const limit = Error.stackTraceLimit;
  try {
    const session = await target.open();
    Error.stackTraceLimit = 0;
    await runCases(session, seed, more, result);
    Error.stackTraceLimit = limit;
    const found = result.finding?.seed;
    if (found !== undefined) result.finding = { seed: found, error: await again(session, found, result) };
    try {
      await session.close();
    } finally {
      result.figures = session.figures?.() ?? "";
    }
  } catch (error) {
    result.finding ??= { seed: undefined, error };
  } finally {
    Error.stackTraceLimit = limit;
  }
  result.seconds = (performance.now() - start) / 1000;
  return result;
}

async function runCases(
  session: FuzzSession,
  seed: number,
  more: (cases: number, next: number) => boolean,
  result: FuzzResult,
): Promise<void> {
  let turn = performance.now();
  for (;;) {
    const current = (seed + result.cases) >>> 0;
    if (!more(result.cases, current)) return;
    try {
      let outcome = session.run(new Random(current));
      if (typeof outcome !== "string") outcome = await outcome;
      result.outcomes.set(outcome, (result.outcomes.get(outcome) ?? 0) + 1);
    } catch (error) {
      result.finding = { seed: current, error };
      return;
    }
    result.cases++;
    if (performance.now() - turn < TURN) continue;
    await nextTurn();
    turn = performance.now();
  }
}

/** Runs the case of a finding once more, for the stack. What depends on time may not come again. */
async function again(session: FuzzSession, seed: number, { finding }: FuzzResult): Promise<unknown> {
  try {
    await session.run(new Random(seed));
    return new Error("the case did not fail again", { cause: finding?.error });
  } catch (error) {
    return error;
  }
}
