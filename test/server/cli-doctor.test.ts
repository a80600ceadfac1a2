import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { Command } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

/** It starts QEMU, where there is one. */
const SLOW = 60_000;

interface Report {
  ok: boolean;
  findings: { check: string; status: string; text: string; fix?: string }[];
}

async function report(environment: NodeJS.ProcessEnv = {}): Promise<{ code: number | null; report: Report }> {
  const { code, stdout } = await Command.run(["doctor", "--json"], { environment });
  return { code, report: JSON.parse(stdout) as Report };
}

function finding({ findings }: Report, check: string) {
  return findings.find((each) => each.check === check);
}

/** A command that says that a QEMU has these devices. */
function writeQemu(file: string, devices: string): void {
  writeFileSync(file, `#!/bin/sh\ncat <<'END'\n${devices}\nEND\n`);
  chmodSync(file, 0o755);
}

/** Where such a QEMU is a command, and none was fetched. */
function withQemu(devices: string): NodeJS.ProcessEnv {
  const directory = testDirectory();
  writeQemu(join(directory, "qemu-system-arm"), devices);
  return { PATH: `${directory}:/bin:/usr/bin`, RPMSG_GUEST_DIR: directory };
}

describe("rpmsg-bridge doctor", { timeout: SLOW }, () => {
  test.skipIf(unsupported !== undefined)(titled("finds nothing wrong where the tests run"), async () => {
    const { code, report: found } = await report();
    expect([code, found.ok]).toEqual([0, true]);
    for (const check of ["node", "koffi", "memory", "poller", "sockets"]) {
      expect(finding(found, check)?.status, check).toBe("ok");
    }
    // For people: a line each, and what to do below.
    const { stdout } = await Command.run(["doctor"]);
    const heads = stdout.split("\n").filter((line) => /^(ok|warn|fail) /.test(line));
    expect(heads).toHaveLength(found.findings.length);
  });

  test.skipIf(unsupported !== undefined)(
    titled("fails where sockets cannot be made, and says what to do"),
    async () => {
      const { code, report: found } = await report({ TMPDIR: "/nowhere" });
      expect([code, found.ok]).toEqual([1, false]);
      expect(finding(found, "sockets")).toMatchObject({
        status: "fail",
        fix: expect.stringContaining("TMPDIR") as string,
      });
      expect((await Command.run(["doctor"], { environment: { TMPDIR: "/nowhere" } })).stderr).toMatch(
        /^rpmsg-bridge: 1 of \d+ checks failed\n$/,
      );
    },
  );

  test("a port that is taken is a warning", async () => {
    const server = createServer();
    onTestFinished(() => void server.close());
    server.listen(8080, "127.0.0.1");
    // By us, or by somebody else.
    await once(server, "listening").catch(() => {});
    const { report: found } = await report();
    expect(finding(found, "port")).toMatchObject({ status: "warn", text: "127.0.0.1:8080: EADDRINUSE" });
  });

  test.each([
    {
      devices: 'name "vhost-user-test-device-pci", bus PCI',
      status: "ok",
      text: "has vhost-user-test-device-pci",
    },
    { devices: 'name "vhost-user-device-pci", bus PCI', status: "warn", text: "too old" },
  ])("of QEMU it wants the device: $text", async ({ devices, status, text }) => {
    const { report: found } = await report(withQemu(devices));
    expect(finding(found, "qemu")).toMatchObject({ status, text: expect.stringContaining(text) as string });
  });

  test("it finds the QEMU that guest:fetch gets, where the system's is too old", async () => {
    const environment = withQemu('name "vhost-user-device-pci", bus PCI');
    const usr = join(testDirectory(), "qemu/usr");
    mkdirSync(join(usr, "lib64"), { recursive: true });
    // It is run by the loader of its own C library.
    writeQemu(join(usr, "lib64/ld-linux-x86-64.so.2"), 'name "vhost-user-test-device-pci", bus PCI');
    const RPMSG_GUEST_DIR = join(usr, "../..");
    const { report: found } = await report({ ...environment, RPMSG_GUEST_DIR });
    const text = `${join(usr, "bin/qemu-system-arm")} has vhost-user-test-device-pci`;
    expect(finding(found, "qemu")).toMatchObject({ status: "ok", text });
  });

  test("few descriptors are a warning", () => {
    const main = fileURLToPath(new URL("../../dist/server/main.js", import.meta.url));
    const env = { PATH: `${dirname(process.execPath)}:${process.env["PATH"]}` };
    const args = ["--nofile=300:300", process.execPath, main, "doctor", "--json"];
    const { stdout } = spawnSync("prlimit", args, { env, encoding: "utf8" });
    expect(finding(JSON.parse(stdout) as Report, "descriptors")).toMatchObject({
      ...{
        status: "warn",
        text: "the process may have 300",
        fix: expect.stringContaining("ulimit -n") as string,
      },
    });
  });
});
