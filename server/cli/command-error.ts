export const exitCode = { done: 0, failed: 1, usage: 2 } as const;

/** A command that cannot do what was asked; the message is for people. */
export class CommandError extends Error {
  readonly exitCode: number;

  constructor(message: string, code: number = exitCode.failed) {
    super(message);
    this.name = "CommandError";
    this.exitCode = code;
  }
}
