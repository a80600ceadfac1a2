/** Milliseconds: a timer of Node that is to take longer fires at once. */
export const LONGEST_TIMER = 2 ** 31 - 1;
