import type { Log } from "./log.ts";

type Send = (message: string) => void;

/**
 * Tells a service manager such as systemd what the process is about (sd_notify(3)): whatever is set in NOTIFY_SOCKET
 * gets it. Where that fails, a line in the log says so, and the bridge goes on.
 */
export class ServiceManager {
  readonly #send: Send;
  /** Milliseconds within which it wants a sign of life; 0 for never. */
  readonly #within: number;
  #watchdog: NodeJS.Timeout | undefined;

  private constructor(send: Send, within: number) {
    this.#send = send;
    this.#within = within;
  }

  /**
   * The service manager of this process; one that gets nothing where there is none. Native code is loaded only for a
   * real one. WATCHDOG_PID is not looked at: it names the predecessor after a hand-over, and nobody else asks here.
   */
  static async of(env: NodeJS.ProcessEnv, log: Log): Promise<ServiceManager> {
    const socket = env["NOTIFY_SOCKET"];
    if (socket === undefined || socket === "") return new ServiceManager(() => {}, 0);
    const { notify } = await import("./guests/notify-socket.ts");
    let failed = false;
    const send = (message: string): void => {
      try {
        notify(socket, message);
        failed = false;
      } catch (error) {
        // Said once for a row of failures.
        if (!failed) log.write("notify-failed", { reason: (error as Error).message });
        failed = true;
      }
    };
    // Microseconds; anything that is no such number is no watchdog.
    const within = Math.floor(Number(env["WATCHDOG_USEC"] ?? 0) / 1000);
    return new ServiceManager(send, within >= 2 && within < 2 ** 31 ? within : 0);
  }

  /** The bridge listens, there. MAINPID makes a successor the service's process. */
  ready(url: string): void {
    this.#send(`READY=1\nMAINPID=${process.pid}\nSTATUS=listening on ${url}`);
    if (this.#within === 0) return;
    // That the timer fires is the sign of life: it comes from the event loop that serves guests and clients.
    this.#watchdog = setInterval(() => this.#send("WATCHDOG=1"), this.#within / 2).unref();
  }

  /** It drains. The sign of life goes on. */
  stopping(): void {
    this.#send("STOPPING=1\nSTATUS=draining");
  }

  close(): void {
    clearInterval(this.#watchdog);
  }
}
