import type { FastifyError, FastifyInstance } from "fastify";
import fastify from "fastify";
import { PAGE_HEADERS } from "./access/page-headers.ts";
import { HttpProblem, PROBLEM_TYPE } from "./problem.ts";

/**
 * An application that never listens, for pages: requests are handed to its `routing`. Its answers have the headers of
 * pages, and what goes wrong is a problem.
 * @param report told of mistakes of the bridge itself
 */
export function pageApp(report: (error: unknown) => void): FastifyInstance {
  const app = fastify({ routerOptions: { ignoreTrailingSlash: true } });
  app.setErrorHandler((error: FastifyError | HttpProblem, request, reply) => {
    const { statusCode = 500 } = error;
    if (statusCode >= 500) report(error);
    let problem = new HttpProblem("not-found", `there is no ${request.method} ${request.url}`);
    if (error instanceof HttpProblem) problem = error;
    else if (statusCode >= 500)
      problem = new HttpProblem("internal", "the bridge made a mistake; its log says which");
    return reply.code(problem.statusCode).type(PROBLEM_TYPE).send(JSON.stringify(problem.toProblem()));
  });
  app.setNotFoundHandler((request) => {
    throw new HttpProblem("not-found", `there is no ${request.method} ${request.url}`);
  });
  app.addHook("onRequest", async (_request, reply) => {
    reply.headers(PAGE_HEADERS);
  });
  return app;
}
