import { signal } from "@preact/signals";

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Grows when the colours change: what is painted by script is painted again. */
export const repaint = signal(0);

dark.addEventListener("change", () => repaint.value++);

/** A colour of style.css, by its name there. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
