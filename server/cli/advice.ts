import type { ErrorCode } from "../../schemas/index.ts";
import { closeCode, errorAdvice } from "../../schemas/index.ts";

/** What to do in words of this command line, where those for other clients would not help. */
const adviceHere: Partial<Record<ErrorCode, string>> = {
  // Their texts name what is wrong.
  "bad-request": "",
  "bad-frame": "",
  "not-found": "The bridge is of another version than this command line: use the same.",
  "guest-unknown": "rpmsg-bridge guests lists those that there are.",
  "endpoint-unknown": "rpmsg-bridge ls lists those that there are.",
  "endpoint-in-use":
    "An exclusive client is there: wait for its end, or replace it with connect --share exclusive --takeover.",
  "local-in-use":
    "Choose another --local, or none; clients that all say --share shared may have one together.",
  "too-large": "rpmsg-bridge info tells the most that goes, the mtu.",
  "no-reply": "The message was sent: give --wait more seconds.",
  "slow-reader": "Read faster, or choose what is to be dropped with --slow.",
};

/** An error for people, in one line: what happened, its code and what to do. */
export function explain(text: string, code: string): string {
  // A newer bridge may have codes that we do not know.
  if (!Object.hasOwn(errorAdvice, code)) return `${text} (${code})`;
  const general = errorAdvice[code as ErrorCode];
  const advice = adviceHere[code as ErrorCode] ?? general;
  // Where there is no more to say, the bridge says what to do.
  if (text === general) return `${advice} (${code})`;
  return advice === "" ? `${text} (${code})` : `${text} (${code}): ${advice}`;
}

const codeOfClose: Partial<Record<number, ErrorCode>> = {
  [closeCode.drain]: "draining",
  [closeCode.tooBig]: "too-large",
  [closeCode.internal]: "internal",
  [closeCode.restart]: "draining",
  [closeCode.slowReader]: "slow-reader",
  [closeCode.guestReset]: "guest-gone",
  [closeCode.endpointWithdrawn]: "endpoint-gone",
  [closeCode.replaced]: "replaced",
};

/** Why a connection has ended, for people. */
export function explainClose(code: number, reason: string): string {
  if (code === 1006) return "the connection broke off: the bridge has ended, or the way to it is interrupted";
  const text = `the connection ended with ${code}: ${reason || "no reason given"}`;
  // 4004 has the code as its reason.
  const known = codeOfClose[code] ?? reason;
  return Object.hasOwn(errorAdvice, known) ? explain(text, known) : text;
}
