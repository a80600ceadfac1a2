import type { Duplex } from "node:stream";
import { limitTime } from "./answer-time.ts";
import type { HttpProblem } from "./problem.ts";
import { PROBLEM_TYPE } from "./problem.ts";

/** Answers on a connection of which no route takes care, such as an upgrade, with an error, and closes it. */
export function refuse(stream: Duplex, problem: HttpProblem, bounds: Parameters<typeof limitTime>[1]): void {
  const body = JSON.stringify(problem.toProblem());
  const { status, title } = problem.toProblem();
  const head = [
    `HTTP/1.1 ${status} ${title}`,
    `Connection: ${problem.connection(false)}`,
    `Content-Type: ${PROBLEM_TYPE}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...Object.entries(problem.headers).map(([name, value]) => `${name}: ${value}`),
  ];
  limitTime(stream, bounds);
  stream.once("finish", () => stream.destroy());
  stream.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}
