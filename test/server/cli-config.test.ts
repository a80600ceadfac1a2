import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import type { z } from "zod";
import { Config, GuestConfig } from "../../schemas/config.ts";
import { EndpointDeclaration } from "../../schemas/declaration.ts";
import { exampleFile } from "../../server/cli/config.ts";
import { loadConfig } from "../../server/config/load-config.ts";
import { Command } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

const EXAMPLE = readFileSync(new URL("../../rpmsg-bridge.example.yaml", import.meta.url), "utf8");

function file(text: string): string {
  const path = join(testDirectory(), "bridge.yaml");
  writeFileSync(path, text);
  return path;
}

describe("config check", () => {
  test("says what is in a file that is right", async () => {
    const path = file(EXAMPLE);
    const { code, stdout, stderr } = await Command.run(["config", "check", path]);
    expect([code, stdout, stderr]).toEqual([0, `${path} is fine: 2 guests, 3 endpoints\n`, ""]);
    const json = await Command.run(["config", "check", path, "--json"]);
    expect(json.code).toBe(0);
    expect(JSON.parse(json.stdout)).toEqual({ file: path, guests: 2, endpoints: 3 });
  });

  test("counts the guest that there is without any, and one is no plural", async () => {
    const empty = file("");
    expect((await Command.run(["config", "check", empty])).stdout).toBe(
      `${empty} is fine: 1 guest, 0 endpoints\n`,
    );
    const one = file("guests: { a: { kind: emulated, endpoints: [{ name: x }] } }");
    expect((await Command.run(["config", "check", one])).stdout).toBe(
      `${one} is fine: 1 guest, 1 endpoint\n`,
    );
  });

  test.each([
    ["limits: { pingInterval: 0 }\n", "limits.pingInterval: "],
    ["listen: '8080'\n", "listen: "],
    ["guests: { vm: { kind: vhost-user } }\n", "guests.vm.path: "],
    [
      "guests: { a: { kind: emulated, endpoints: [{ name: x, ns: none }] } }\n",
      "guests.a.endpoints.0.address: ",
    ],
    ["colour: red\n", "colour: unknown key"],
    ["a: [\n", "config: "],
  ])("%j is exit code 2, and serve says the same", async (text, key) => {
    const path = file(text);
    const checked = await Command.run(["config", "check", path]);
    expect([checked.code, checked.stdout]).toEqual([2, ""]);
    expect(checked.stderr).toMatch(/^rpmsg-bridge: configuration: .*\n$/);
    expect(checked.stderr).toContain(key);
    expect(await Command.run(["serve", "--config", path])).toEqual(checked);
    expect(await Command.run(["config", "check", path, "--json"])).toEqual(checked);
  });

  test("a file that is not there is exit code 2; the environment is no part of it", async () => {
    const missing = await Command.run(["config", "check", "/nonexistent.yaml"]);
    expect(missing).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("config: ") });
    const environment = { RPMSG_BRIDGE_LOG_LEVEL: "loud" };
    expect(await Command.run(["config", "check", file("")], { environment })).toMatchObject({ code: 0 });
  });
});

describe("config example", () => {
  test("prints the package's file, from dist/ and from the sources", async () => {
    expect(await Command.run(["config", "example"])).toMatchObject({ code: 0, stdout: EXAMPLE, stderr: "" });
    expect(readFileSync(exampleFile(), "utf8")).toBe(EXAMPLE);
  });
});

describe("rpmsg-bridge.example.yaml", () => {
  /** Comments that are keys lose their mark; the words of other comments do not begin with a key. */
  const uncommented = EXAMPLE.replaceAll(/^(\s*)# (\s*(?:- )?[A-Za-z]+:(?: .*)?)$/gm, "$1$2");

  test("is right as it is, and with all keys that it comments out", async () => {
    expect(uncommented).not.toBe(EXAMPLE);
    expect(Object.keys((await loadConfig({ config: file(EXAMPLE) }, {})).guests)).toEqual(["demo", "vm0"]);
    expect(Object.keys((await loadConfig({ config: file(uncommented) }, {})).guests)).toEqual([
      "demo",
      "vm0",
    ]);
  });

  test("what it comments out is the default, or an example where there is none", async () => {
    const { guests, ...config } = await loadConfig({ config: file(uncommented) }, {});
    const { guests: _, ...defaults } = await loadConfig({}, {});
    expect(defaults).toMatchObject({ tokens: [] });
    for (const key of ["handover", "socketMode", "tls"]) expect(defaults).not.toHaveProperty(key);
    const { handover, socketMode, tls, tokens } = config;
    expect([handover, socketMode, tls, tokens]).not.toContain(undefined);
    expect(config).toEqual({ ...defaults, handover, socketMode, tls, tokens });
    const asItIs = (await loadConfig({ config: file(EXAMPLE) }, {})).guests;
    expect(guests["demo"]).toEqual({ ...asItIs["demo"], profile: "linux", path: "./my-guest.js" });
    expect({ ...guests["vm0"], endpoints: [] }).toEqual({ ...asItIs["vm0"], endpoints: [] });
  });

  test("has every key that there is", () => {
    const [emulated, vhostUser] = GuestConfig.options;
    const { limits, guests, ...top } = parse(uncommented) as Record<string, Record<string, unknown>>;
    const { demo, vm0 } = guests as Record<string, Record<string, unknown>>;
    const keys = (shape: object) => Object.keys(shape).toSorted();
    expect(keys({ ...top, limits, guests })).toEqual(keys(Config.shape));
    expect(keys(limits ?? {})).toEqual(
      keys((Config.shape.limits as unknown as z.ZodPrefault<z.ZodObject>).unwrap().shape),
    );
    expect(keys(demo ?? {})).toEqual(keys(emulated.shape));
    expect(keys(vm0 ?? {})).toEqual(keys(vhostUser.shape));
    const endpoints = vm0?.["endpoints"] as object[];
    expect([...new Set(endpoints.flatMap((each) => Object.keys(each)))].toSorted()).toEqual(
      keys(EndpointDeclaration.shape),
    );
  });
});
