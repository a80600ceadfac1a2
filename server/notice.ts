/** Somebody waits for something that may never happen. */
export class Notice {
  readonly #waiting = new Set<() => void>();

  /** It has happened: whoever waits goes on. Costs nothing where nobody does. */
  give(): void {
    if (this.#waiting.size === 0) return;
    for (const wake of this.#waiting) wake();
  }

  /** Waits until it happens next, at most so many milliseconds. */
  async within(timeout: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, timeout);
      this.#waiting.add(wake);
    });
  }
}
