/** Lets a load hold its breath: while it is on nobody begins anything, and what is on its way comes to its end. */
export class Rest {
  isOn = false;
  #over: Promise<void> = Promise.resolve();
  #end = (): void => {};

  /** Resolves once it is not on. */
  get over(): Promise<void> {
    return this.#over;
  }

  begin(): void {
    if (this.isOn) return;
    this.isOn = true;
    this.#over = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  end(): void {
    this.isOn = false;
    this.#end();
  }
}
