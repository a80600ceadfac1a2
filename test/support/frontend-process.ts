import type { ChildProcess } from "node:child_process";
import { fork } from "node:child_process";
import { once } from "node:events";
import { compiled } from "../../bench/harness.ts";

/** A vhost-user frontend with the demonstration guest, in a process of its own, which can be killed at any time. */
export class FrontendProcess {
  readonly #child: ChildProcess;
  readonly #exit: Promise<unknown>;
  readonly #ready: Promise<unknown>;

  /** Starts it; it attaches later, at once when it is told to. */
  constructor(socket: string) {
    this.#child = fork(compiled("test/support/frontend-main.js"), [socket], { execArgv: [] });
    this.#exit = once(this.#child, "exit");
    this.#ready = once(this.#child, "message");
  }

  /** It could attach now. */
  async ready(): Promise<void> {
    await Promise.race([this.#ready, this.#over()]);
  }

  /** Attaches to the bridge. It must be ready. */
  async attach(): Promise<void> {
    const attached = once(this.#child, "message");
    this.#child.send("attach");
    await Promise.race([attached, this.#over()]);
  }

  /** Begins to attach to the bridge, and dies of SIGKILL right behind so many messages. It must be ready. */
  async attachPartly(messages: number): Promise<void> {
    this.#child.send({ messages });
    await this.#exit;
  }

  /** Kills it with SIGKILL. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exit;
  }

  async #over(): Promise<never> {
    await this.#exit;
    throw new Error("the frontend has ended");
  }
}
