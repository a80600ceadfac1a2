import type { Socket } from "node:net";
import type { InTurn } from "./access/in-turn.ts";
import type { Bridge } from "./bridge.ts";
import type { ClientCounts } from "./client-counts.ts";
import { HttpProblem } from "./problem.ts";
import { refuse } from "./refuse.ts";

/** Codes of errors of Node's HTTP parser and of its times. Others come from TLS, where no answer can be read. */
const OF_HTTP = /^(HPE|ERR_HTTP)_/;

/**
 * Ends a connection of which Node could not read a request (its `clientError`), counts it, and says why, but within
 * another answer, of which it would be taken for a part. Behind a whole request it is the answer to that one, too, which
 * may have been carried out: a length that is too short looks the same.
 */
export function endUnreadable(
  error: NodeJS.ErrnoException,
  socket: Socket,
  turns: InTurn,
  bridge: Pick<Bridge, "limits" | "counts">,
): void {
  // What comes while the answer to the first error goes out.
  if (socket.writableEnded && !socket.destroyed) return;
  const fault = bridge.counts.headFault(error);
  if (!socket.writable || !OF_HTTP.test(error.code ?? "") || !turns.awaits(socket))
    return void socket.destroy();
  refuse(socket, problemOf(fault, error), bridge);
}

function problemOf(fault: ReturnType<ClientCounts["headFault"]>, { message }: Error): HttpProblem {
  if (fault === "timeout") return new HttpProblem("request-timeout", "the request did not come in time");
  if (fault === "too-large") return new HttpProblem("head-too-large", "the head of the request is too large");
  // The parser's words have nothing of what the client has sent.
  return new HttpProblem(
    "bad-request",
    `the request cannot be read: ${message.replace(/^Parse Error: /, "")}`,
  );
}
