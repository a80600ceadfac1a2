/** Waits for SIGTERM or SIGINT. A second signal ends the process at once. */
export function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const first = (signal: NodeJS.Signals): void => {
      process.off("SIGTERM", first);
      process.off("SIGINT", first);
      resolve(signal);
    };
    process.on("SIGTERM", first);
    process.on("SIGINT", first);
  });
}

/** When a signal is to end the process, does something before it takes its effect; as long as `until` is pending. */
export function beforeSignals(until: Promise<void>, action: () => Promise<void>): void {
  const signals = ["SIGHUP", "SIGINT", "SIGTERM"] as const;
  const onSignal = (signal: NodeJS.Signals): void => {
    off();
    // Not before everybody who waits for the same has had a turn.
    void action().then(() => setImmediate(() => process.kill(process.pid, signal)));
  };
  const off = (): void => {
    for (const signal of signals) process.off(signal, onSignal);
  };
  for (const signal of signals) process.on(signal, onSignal);
  until.then(off, off);
}
