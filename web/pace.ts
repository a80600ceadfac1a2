/**
 * Waits; the end of the signal ends it early.
 * @param reasons the event "look" of it does that too
 */
export function pause(milliseconds: number, end: AbortSignal, reasons?: EventTarget): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      end.removeEventListener("abort", done);
      reasons?.removeEventListener("look", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    end.addEventListener("abort", done);
    reasons?.addEventListener("look", done);
  });
}

/** A look may take this part of the time. */
const SHARE = 10;
/** Milliseconds between two looks at most, and those that one may take. */
export const LONGEST = 10_000;

/**
 * Milliseconds until the next look: where looks take long they come less often.
 * @param took milliseconds that the last one took
 * @param failed what that took tells nothing of what a look costs
 */
export function untilNext(period: number, took: number, failed: boolean): number {
  if (failed) return period;
  return Math.min(Math.max(period - took, took * SHARE), LONGEST);
}

/** Milliseconds after which a picture is not waited for any more: a window that is covered has none. */
const NO_PICTURE = 250;

/**
 * Calls back with the next picture; where none is drawn, soon, or while the page is out of sight at once: then no picture
 * comes, timers come once a second or a minute, and whoever comes back would find that most was dropped. Nobody clicks
 * there, so that nothing has to wait for pictures; the history is bounded, and what it shows is drawn by a timer.
 */
export function withPicture(callback: () => void): void {
  if (document.hidden) {
    callback();
    return;
  }
  const done = (): void => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    callback();
  };
  const frame = requestAnimationFrame(done);
  const timer = setTimeout(done, NO_PICTURE);
}
