import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Config } from "../../schemas/index.ts";
import { missingTool, titledWith } from "../support/missing-tool.ts";

const UNIT = fileURLToPath(new URL("../../docs/systemd/rpmsg-bridge.service", import.meta.url));
const SECURITY = fileURLToPath(new URL("../../SECURITY.md", import.meta.url));

const analyze = (...args: string[]) =>
  spawnSync("systemd-analyze", [...args, UNIT], { encoding: "utf8", env: { ...process.env, LC_ALL: "C" } });
const missing = missingTool("systemd-analyze", "systemd");

/** Settings of the unit, by key: the last one of each. */
function settings(): Map<string, string> {
  const lines = readFileSync(UNIT, "utf8").split("\n");
  const pairs = lines.filter((line) => /^\w+=/.test(line)).map((line) => line.split(/=(.*)/));
  return new Map(pairs.map(([key = "", value = ""]) => [key, value]));
}

const seconds = (text: string | undefined): number => Number(/^(\d+)s$/.exec(text ?? "")?.[1]);

describe("the unit of systemd", () => {
  test("waits for the bridge's word, and longer for its end than the bridge takes", () => {
    const unit = settings();
    expect(unit.get("Type")).toBe("notify");
    expect(seconds(unit.get("TimeoutStopSec")) * 1000).toBeGreaterThan(Config.parse({}).limits.drainTimeout);
    expect(seconds(unit.get("WatchdogSec"))).toBeGreaterThan(1);
  });

  test("has SIGTERM sent to the bridge alone: it drains through the processes of isolated guests", () => {
    expect(settings().get("KillMode")).toBe("mixed");
  });
});

describe.skipIf(missing !== undefined)(titledWith(missing, "the unit, by systemd-analyze,"), () => {
  test("is what systemd takes for right", () => {
    // It cannot know the user, and writes nothing else.
    const { status, stderr } = analyze("verify");
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  });

  test("is exposed as little as SECURITY.md says", () => {
    const said = /Overall exposure level.*?(\d\.\d)/.exec(readFileSync(SECURITY, "utf8"))?.[1];
    expect(Number(said)).toBeLessThan(2);
    const { stdout } = analyze("security", "--offline=true", "--no-pager");
    const found = /Overall exposure level for rpmsg-bridge.service: (\d\.\d)/.exec(stdout)?.[1];
    // Versions of systemd weigh differently.
    expect(Number(found)).toBeLessThanOrEqual(Number(said) + 0.5);
  });
});
