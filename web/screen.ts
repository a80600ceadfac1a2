import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { adoptStyles } from "./adopted-styles.ts";
import { colour } from "./colours.ts";

/** Bytes that may wait to be drawn: what is more nobody could read. */
const MOST_WAITING = 256 * 1024;

adoptStyles(document);

/** A terminal in an element. */
export class Screen {
  readonly #terminal: Terminal;
  readonly #watcher: ResizeObserver;
  #waiting = 0;
  #replaying = false;

  /** @param onData told what is typed */
  constructor(element: HTMLElement, onData: (text: string) => void) {
    this.#terminal = new Terminal({
      cursorBlink: false,
      fontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace",
      fontSize: 13,
      scrollback: 5000,
      theme: theme(),
      // Links are the guest's: they lead nowhere.
      linkHandler: { activate: () => {} },
      // What the guest writes is read out, too.
      screenReaderMode: true,
    });
    const fit = new FitAddon();
    this.#terminal.loadAddon(fit);
    this.#terminal.open(element);
    // The way out for who has no mouse: all other keys are the guest's.
    this.#terminal.attachCustomKeyEventHandler(({ key, shiftKey }) => !(key === "Tab" && shiftKey));
    this.#terminal.onData((text) => {
      if (!this.#replaying) onData(text);
    });
    this.#watcher = new ResizeObserver(() => fit.fit());
    this.#watcher.observe(element);
  }

  /** @returns false where it is not shown: too much waits */
  write(data: Uint8Array): boolean {
    if (this.#waiting > MOST_WAITING) return false;
    this.#waiting += data.length;
    this.#terminal.write(data, () => {
      this.#waiting -= data.length;
    });
    return true;
  }

  /** Shows what came before. The terminal does not answer questions in it: it may have done so then. */
  replay(all: readonly Uint8Array[]): void {
    this.#replaying = true;
    for (const data of all) this.#terminal.write(data);
    this.#terminal.write("", () => {
      this.#replaying = false;
    });
  }

  focus(): void {
    this.#terminal.focus();
  }

  repaint(): void {
    this.#terminal.options.theme = theme();
  }

  close(): void {
    this.#watcher.disconnect();
    this.#terminal.dispose();
  }
}

function theme(): { background: string; foreground: string; cursor: string; selectionBackground: string } {
  return {
    background: colour("panel"),
    foreground: colour("ink"),
    cursor: colour("accent"),
    selectionBackground: colour("accent-faint"),
  };
}
