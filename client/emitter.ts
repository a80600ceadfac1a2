type Listener<Event> = (event: Event) => void;

/** Typed events. A listener that throws disturbs nobody: its error is reported as one that nobody caught. */
export class Emitter<Events> {
  readonly #listeners: { [Type in keyof Events]?: Set<Listener<Events[Type]>> } = {};

  /** @returns a function that removes the listener */
  on<Type extends keyof Events>(type: Type, listener: Listener<Events[Type]>): () => void {
    const listeners = this.#listeners[type] ?? new Set();
    this.#listeners[type] = listeners;
    // A function of its own, so that one given twice is called twice.
    const own: Listener<Events[Type]> = (event) => listener(event);
    listeners.add(own);
    return () => listeners.delete(own);
  }

  has(type: keyof Events): boolean {
    return (this.#listeners[type]?.size ?? 0) > 0;
  }

  emit<Type extends keyof Events>(type: Type, event: Events[Type]): void {
    for (const listener of [...(this.#listeners[type] ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
