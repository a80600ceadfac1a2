import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import type { Line } from "./lines.ts";
import type { Trouble } from "./trouble.ts";

/** What went wrong, and what to do. */
export function TroubleNote({ trouble }: { trouble: Trouble | undefined }): JSX.Element | null {
  if (trouble === undefined) return null;
  const { text, code, advice } = trouble;
  return (
    <div class="trouble" role="alert">
      <p>
        {text} <code>({code})</code>
      </p>
      {advice !== "" && <p class="advice">{advice}</p>}
    </div>
  );
}

/** Why what stands beside it is not to be had. */
export function Refused({ reason, id }: { reason: string | undefined; id?: string }): JSX.Element | null {
  if (reason === undefined) return null;
  return (
    <p class="refused" id={id}>
      {reason}
    </p>
  );
}

/** A state, with a mark that says the same without colour. */
export function StateMark({ state }: { state: string }): JSX.Element {
  return (
    <span class={`state state-${state.replaceAll(" ", "-")}`}>
      <span class="dot" aria-hidden="true" />
      {state}
    </span>
  );
}

/** Names and values. */
export function Facts({ facts }: { facts: readonly (readonly [string, ComponentChildren])[] }): JSX.Element {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A small line of the last minute, for the eye alone: the number stands beside it. */
export function Spark({ values }: { values: readonly number[] }): JSX.Element {
  const [width, height] = [72, 18];
  const top = Math.max(...values, 1);
  const points = values.map(
    (value, i) =>
      `${width - (values.length - 1 - i) * (width / 59)},${height - 1 - (value / top) * (height - 2)}`,
  );
  return (
    <svg class="spark" width={width} height={height} aria-hidden="true">
      <polyline points={points.join(" ")} />
    </svg>
  );
}

/** A line to copy. */
export function CopyLine({ line: { title, text, hint } }: { line: Line }): JSX.Element {
  const told = useSignal("");
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      told.value = "Copied";
    } catch {
      // Pages that come without TLS from elsewhere may not.
      told.value = "Select it and copy: the browser does not let this page";
    }
  };
  return (
    <section class="copy">
      <header>
        <h3>{title}</h3>
        <span role="status">{told}</span>
        <button type="button" class="quiet" onClick={() => void copy()}>
          Copy<span class="hidden"> the {title} line</span>
        </button>
      </header>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with keys */}
      <pre tabIndex={0}>{text}</pre>
      {hint !== undefined && <p class="hint">{hint}</p>}
    </section>
  );
}

/** One of a few. */
export function Choice<T extends string>(props: {
  legend: string;
  options: readonly T[];
  value: T;
  onChange: (value: T) => void;
}): JSX.Element {
  const { legend, options, value, onChange } = props;
  return (
    <fieldset class="choice">
      <legend class="hidden">{legend}</legend>
      {options.map((option) => (
        <label key={option}>
          <input type="radio" name={legend} checked={option === value} onChange={() => onChange(option)} />
          <span>{option}</span>
        </label>
      ))}
    </fieldset>
  );
}
