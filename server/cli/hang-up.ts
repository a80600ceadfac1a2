import { closeSync, openSync } from "node:fs";
import { isatty } from "node:tty";

/** Standard input, output and error. */
const STANDARD = [0, 1, 2];

/**
 * What SIGHUP asks for: `reload`, or the same as SIGTERM where a terminal that was there at the start is closed. A
 * process without a terminal, such as one under nohup, which replaces all three, has none that can be closed.
 */
export class HangUp {
  readonly #terminals = STANDARD.filter((fd) => isatty(fd));

  constructor() {
    process.on("exit", () => this.#release());
  }

  /** From now on; until then SIGHUP ends the process. */
  listen(reload: () => void): void {
    process.on("SIGHUP", () => {
      if (this.#closed().length === 0) return reload();
      // Only for those who wait for the first signal. A shell sends SIGHUP to its jobs, and then the kernel does: with
      // kill(2) the other one, or one after Ctrl-C, would be the second signal, which ends the process at once.
      process.emit("SIGTERM", "SIGTERM");
    });
  }

  /** The descriptors of terminals that were closed: they give EIO (tty_io.c, hung_up_tty_ioctl). */
  #closed(): number[] {
    return this.#terminals.filter((fd) => !isatty(fd));
  }

  /**
   * When the process ends, Node gives its terminals the settings that it found, and aborts where one does not take
   * them; it leaves alone what is not the file that it was at the start (src/node.cc, ResetStdio).
   */
  #release(): void {
    for (const fd of this.#closed()) {
      closeSync(fd);
      // Gets the lowest number that is free, this one (open(2)).
      openSync("/dev/null", "r+");
    }
  }
}
