import { errorAdvice, Problem } from "../../schemas/index.ts";
import type { ProblemCode } from "../problem.ts";
import { HttpProblem, PROBLEM_TYPE } from "../problem.ts";

/** The errors of a route, for the answers of its schema: by status, with their codes. */
export function problems(...codes: ProblemCode[]): object {
  const byStatus: Record<number, { description: string; content: object }> = {};
  for (const code of codes) {
    const { statusCode } = new HttpProblem(code, "");
    const before = byStatus[statusCode];
    const text = `\`${code}\`: ${errorAdvice[code]}`;
    byStatus[statusCode] = {
      description: before === undefined ? text : `${before.description}\n\n${text}`,
      content: { [PROBLEM_TYPE]: { schema: Problem } },
    };
  }
  return byStatus;
}
