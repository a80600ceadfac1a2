import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Command } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

/** Fastify has these for servers without schemas of their own, and no file of configuration is read here. */
const NEVER = ["ajv", "@fastify/ajv-compiler", "yaml"];
/** What the documents and the metrics are made with. */
const PACKAGES = ["@fastify/static", "@fastify/swagger", "@fastify/swagger-ui", "prom-client"];

/** Files that a bridge has loaded which was asked for these paths: V8 tells of every script. */
async function loaded(paths: string[]): Promise<string[]> {
  const directory = testDirectory();
  const environment = { NODE_V8_COVERAGE: directory };
  const bridge = Command.start(["serve", "--listen", "127.0.0.1:0"], { environment });
  const url = await bridge.url();
  for (const path of paths) expect((await fetch(url + path)).status).toBe(200);
  expect(await bridge.kill("SIGTERM")).toMatchObject({ code: 0 });
  return readdirSync(directory).flatMap((file) => {
    const { result } = JSON.parse(readFileSync(join(directory, file), "utf8")) as {
      result: { url: string }[];
    };
    return result.map((script) => script.url);
  });
}

function packagesOf(files: string[], names = PACKAGES): string[] {
  return names.filter((name) => files.some((file) => file.includes(`/node_modules/${name}/`)));
}

test("a bridge loads what documents and metrics need when it is first asked for them", async () => {
  const idle = await loaded(["/healthz", "/api/v1/endpoints"]);
  expect(packagesOf(idle)).toEqual([]);
  expect(packagesOf(idle, NEVER)).toEqual([]);
  expect(idle.filter((file) => /\/server\/(documents\/|metrics\.)/.test(file))).toEqual([]);
  expect(idle.some((file) => file.endsWith("/server/routes/documents.js"))).toBe(true);

  expect(packagesOf(await loaded(["/openapi.json", "/metrics"]))).toEqual(PACKAGES);
}, 60_000);
