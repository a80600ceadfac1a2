import { existsSync } from "node:fs";
import { sep } from "node:path";
import { fileURLToPath } from "node:url";
import files from "@fastify/static";
import type { FastifyInstance } from "fastify";
import { pageApp } from "./page-app.ts";
import { HttpProblem } from "./problem.ts";

/** Where the build has put the dashboard; compiled, this file is in dist/. */
const folder = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../dist/web" : "../web", import.meta.url),
);

/**
 * The dashboard's files. The build has compressed each of them; names of those in assets/ tell what is in them, so that
 * a browser may keep them.
 * @param report told of mistakes of the bridge itself
 */
export async function openDashboard(report: (error: unknown) => void): Promise<FastifyInstance> {
  const app = pageApp(report);
  if (existsSync(folder)) {
    app.register(files, {
      root: folder,
      preCompressed: true,
      cacheControl: false,
      setHeaders(response, path) {
        const named = path.includes(`${sep}assets${sep}`);
        response.setHeader("cache-control", named ? "public, max-age=31536000, immutable" : "no-cache");
        // A cache in between must not give what is compressed to who cannot read it.
        response.setHeader("vary", [response.getHeader("vary") ?? [], "accept-encoding"].flat().join(", "));
      },
    });
  } else {
    // A checkout that only tsc has compiled.
    app.get("/", async () => {
      throw new HttpProblem("not-found", "the dashboard is not built: npm run build");
    });
  }
  await app.ready();
  return app;
}
