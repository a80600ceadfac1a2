import { spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { Command } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

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

/** Of a Node that is started in another way: flags of its own, a limit, another copy of the package. */
function reportOf(
  { before = [], flags = [], root = ROOT }: { before?: string[]; flags?: string[]; root?: string },
  environment: NodeJS.ProcessEnv = {},
): { code: number | null; report: Report } {
  const main = join(root, "dist/server/main.js");
  const [command, ...args] = [...before, process.execPath, ...flags, main, "doctor", "--json"];
  const env = { PATH: process.env["PATH"], ...environment };
  const options = { env, encoding: "utf8", timeout: SLOW } as const;
  const { status, stdout, stderr } = spawnSync(command, args, options);
  if (stdout === "") throw new Error(`no report: ${stderr}`);
  return { code: status, report: JSON.parse(stdout) as Report };
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
    const { report: found } = reportOf({ before: ["prlimit", "--nofile=300:300"] });
    expect(finding(found, "descriptors")).toMatchObject({
      ...{
        status: "warn",
        text: "the process may have 300",
        fix: expect.stringContaining("ulimit -n") as string,
      },
    });
  });

  describe.skipIf(unsupported !== undefined)(titled("fails where memory files cannot be had"), () => {
    /** It is the only one that does. */
    function expectMemory({ code, report: found }: ReturnType<typeof reportOf>, error: string): void {
      expect(found.findings.filter(({ status }) => status === "fail")).toEqual([
        {
          check: "memory",
          status: "fail",
          text: `a memory file of 65536 bytes: ${error}`,
          fix: "memfd_create and mmap must be allowed: look at the seccomp profile of the container, and at ulimit -v and -f.",
        },
      ]);
      expect([code, found.ok]).toEqual([1, false]);
    }

    test("as files must be small", () => {
      // A memory file is a file to that limit (setrlimit(2), RLIMIT_FSIZE).
      expectMemory(reportOf({ before: ["prlimit", "--fsize=1024"] }), "EFBIG");
    });

    test("as seccomp refuses memfd_create", () => {
      expectMemory(reportOf(refusing("memfd_create")), "EPERM");
    });
  });

  test.skipIf(unsupported !== undefined).each([
    { call: "epoll_create1", text: "epoll_create1: EPERM" },
    { call: "eventfd2", text: "an eventfd: EPERM" },
  ] as const)(titled("fails where seccomp refuses $call"), ({ call, text }) => {
    const { code, report: found } = reportOf(refusing(call));
    expect([code, finding(found, "poller")]).toMatchObject([
      1,
      { status: "fail", text, fix: expect.stringContaining("seccomp profile") as string },
    ]);
  });

  describe.skipIf(unsupported !== undefined)(titled("fails where koffi cannot be loaded"), () => {
    test.each([
      {
        why: "as its optional dependency is left out",
        change: (modules: string) => rmSync(join(modules, "@koromix"), { recursive: true }),
        text: /native Koffi module/,
      },
      {
        why: "as its native part is cut off",
        change: (modules: string) => {
          for (const file of readdirSync(join(modules, "@koromix"), { recursive: true, encoding: "utf8" }))
            if (file.endsWith(".node")) truncateSync(join(modules, "@koromix", file), 100);
        },
        text: /koffi\.node/,
      },
      {
        why: "as it is not there",
        change: (modules: string) => rmSync(join(modules, "koffi"), { recursive: true }),
        text: /^Cannot find module 'koffi'$/,
      },
    ])("$why", ({ change, text }) => {
      const root = copiedPackage();
      change(join(root, "node_modules"));
      const { code, report: found } = reportOf({ root });
      expect(found.findings.filter(({ status }) => status === "fail")).toEqual([
        {
          check: "koffi",
          status: "fail",
          text: expect.stringMatching(text) as string,
          fix: expect.stringMatching(/^Run npm ci again, with optional dependencies/) as string,
        },
      ]);
      expect([code, found.ok]).toEqual([1, false]);
      // What they say to fix is right where they are, and would mislead.
      for (const check of ["memory", "poller", "sockets"]) {
        const text = "not tried: that needs koffi";
        expect(finding(found, check)).toEqual({ check, status: "warn", text });
      }
    });
  });

  test("fails where Node is older than package.json wants", () => {
    const root = copiedPackage();
    const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
    const found = (wanted: string) => {
      const content = readFileSync(join(ROOT, "package.json"), "utf8");
      writeFileSync(
        join(root, "package.json"),
        JSON.stringify({ ...(JSON.parse(content) as object), engines: { node: `>=${wanted}` } }),
      );
      return finding(reportOf({ root }).report, "node");
    };
    const text = `${process.versions.node} on ${process.platform} ${process.arch}`;
    for (const wanted of [`${major}.${minor}`, `${major - 1}.${minor + 1}`]) {
      expect(found(wanted), wanted).toEqual({ check: "node", status: "ok", text });
    }
    for (const wanted of [`${major}.${minor + 1}`, `${major + 1}.0`]) {
      const fix = `Install Node ${wanted} or newer (https://nodejs.org).`;
      expect(found(wanted), wanted).toEqual({ check: "node", status: "fail", text, fix });
    }
  });
});

/** The package as it was built, with a koffi of its own: until the end of the test. */
function copiedPackage(): string {
  const root = testDirectory();
  const own = ["koffi", "@koromix"];
  cpSync(join(ROOT, "package.json"), join(root, "package.json"));
  for (const part of ["server", "rpmsg", "guest", "schemas", "client"])
    cpSync(join(ROOT, "dist", part), join(root, "dist", part), { recursive: true });
  mkdirSync(join(root, "node_modules"));
  for (const name of readdirSync(join(ROOT, "node_modules"))) {
    const [from, to] = [join(ROOT, "node_modules", name), join(root, "node_modules", name)];
    if (own.includes(name)) cpSync(from, to, { recursive: true });
    else symlinkSync(from, to);
  }
  return root;
}

/** Numbers of system calls (asm/unistd_64.h, asm-generic/unistd.h). */
const CALLS = {
  memfd_create: { x64: 319, arm64: 279 },
  epoll_create1: { x64: 291, arm64: 20 },
  eventfd2: { x64: 290, arm64: 19 },
} as const;

/** A Node whose main thread is refused a system call, with EPERM, as a container's seccomp profile does (seccomp(2)). */
function refusing(call: keyof typeof CALLS): { flags: string[] } {
  const number = CALLS[call][process.arch as "x64" | "arm64"];
  const file = join(testDirectory(), "refuse.mjs");
  writeFileSync(
    file,
    `
    import { createRequire } from "node:module";
    const koffi = createRequire(${JSON.stringify(join(ROOT, "package.json"))})("koffi");
    const prctl = koffi.load(null).func("int prctl(int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d)");
    // struct sock_filter { u16 code; u8 jt; u8 jf; u32 k; }
    const filter = Buffer.alloc(4 * 8);
    [
      [0x20, 0, 0, 0], // load the number of the call
      [0x15, 0, 1, ${number}], // where it is not that one, over the next
      [0x06, 0, 0, 0x00050001], // SECCOMP_RET_ERRNO | EPERM
      [0x06, 0, 0, 0x7fff0000], // SECCOMP_RET_ALLOW
    ].forEach(([code, yes, no, k], i) => {
      filter.writeUInt16LE(code, i * 8);
      filter.set([yes, no], i * 8 + 2);
      filter.writeUInt32LE(k, i * 8 + 4);
    });
    // struct sock_fprog { u16 len; struct sock_filter *filter; }
    const program = Buffer.alloc(16);
    program.writeUInt16LE(4, 0);
    program.writeBigUInt64LE(BigInt(koffi.address(filter)), 8);
    const [PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER] = [38, 22, 2];
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) throw new Error("no-new-privs");
    const address = BigInt(koffi.address(program));
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0) !== 0) throw new Error("seccomp");
    `,
  );
  return { flags: ["--import", file] };
}
