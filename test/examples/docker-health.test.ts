import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, onTestFinished, test } from "vitest";
import type { ConfigInput } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { Authority } from "../server/certificates.ts";
import { testDirectory } from "../server/support.ts";

const dockerfile = readFileSync(new URL("../../Dockerfile", import.meta.url), "utf8");
const command = /^HEALTHCHECK .*\\\n +CMD (.*)$/m.exec(dockerfile)?.[1] ?? "[]";

/** Exit code of the image's health check, asking that port in place of its own. */
async function check(port: string): Promise<number | null> {
  const [program = "", ...args] = JSON.parse(command.replace(":8080", `:${port}`)) as string[];
  return new Promise((resolve) => {
    const child = execFile(program, args);
    child.once("close", resolve);
  });
}

async function bridge(input: ConfigInput) {
  const running = await startBridge({ listen: "127.0.0.1:0", ...input });
  onTestFinished(() => running.close());
  return running;
}

describe("the health check of the Docker image", { timeout: 60_000 }, () => {
  test.each([
    ["HTTP", () => ({})],
    ["TLS, whatever the certificate's name", () => ({ tls: new Authority(testDirectory()).issue("bridge") })],
  ])("finds a bridge well over %s, and no more when it has gone", async (_, input) => {
    const running = await bridge(input());
    const { port } = new URL(running.url);
    expect(await check(port)).toBe(0);
    await running.close();
    expect(await check(port)).toBe(1);
  });
});
