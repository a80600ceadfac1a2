/** Who has something to show its guest at the end of a turn of the event loop. */
export interface Publisher {
  /** @returns whether the guest is to be called */
  show(): boolean;
  call(): void;
}

let due: Publisher[] = [];

/**
 * Has it show what was sent in this turn of the event loop, with all others that have sent something: one call for each
 * guest, and these right after one another. A call wakes the guest up, and where no core is free it takes ours at once:
 * with the work of other guests between the calls, it did so for every one of them.
 */
export function publishWithTurn(publisher: Publisher): void {
  due.push(publisher);
  if (due.length === 1) setImmediate(publishAll);
}

function publishAll(): void {
  const publishers = due;
  due = [];
  const called = publishers.filter((each) => each.show());
  for (const each of called) each.call();
}
