import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { mostDescriptors } from "../descriptors.ts";
import { CommandError } from "./command-error.ts";
import { bold } from "./terminal.ts";

/** ok; warn: something that is wanted sometimes is missing; fail: the bridge, or guests behind sockets, will not work. */
type Status = "ok" | "warn" | "fail";

interface Finding {
  readonly check: string;
  readonly status: Status;
  /** What was found. */
  readonly text: string;
  /** What to do. */
  readonly fix?: string;
}

/** Below it the bridge soon has to refuse clients. */
const FEW_DESCRIPTORS = 1024;
/** The port of a bridge that is not told otherwise. */
const PORT = 8080;
/** The device of QEMU that a user may give any virtio id (QEMU 11). */
const QEMU_DEVICE = "vhost-user-test-device-pci";
const QEMUS = ["qemu-system-x86_64", "qemu-system-aarch64", "qemu-system-arm"];

/** Looks at the machine, and says what to fix. Exit code 1 where something does not work. */
export async function doctor({ json = false }: { json?: boolean }): Promise<void> {
  const findings = [nodeVersion(), ...(await native()), descriptors(), addressSpace(), await port(), qemu()];
  const failed = findings.filter(({ status }) => status === "fail").length;
  if (json) console.log(JSON.stringify({ ok: failed === 0, findings }));
  else for (const each of findings) console.log(lines(each));
  if (failed > 0) throw new CommandError(`${failed} of ${findings.length} checks failed`);
}

function lines({ check, status, text, fix }: Finding): string {
  const line = `${status === "ok" ? "ok  " : bold(status)}  ${check}: ${text}`;
  return fix === undefined ? line : `${line}\n      ${fix}`;
}

function nodeVersion(): Finding {
  const check = "node";
  const text = `${process.versions.node} on ${process.platform} ${process.arch}`;
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const wanted = /(\d+)\.(\d+)/.exec(packageJson().engines.node)?.slice(1).map(Number) ?? [0, 0];
  const [most = 0, least = 0] = wanted;
  if (major > most || (major === most && minor >= least)) return { check, status: "ok", text };
  return { check, status: "fail", text, fix: `Install Node ${most}.${least} or newer (https://nodejs.org).` };
}

function packageJson(): { engines: { node: string } } {
  return JSON.parse(readFileSync(new URL("package.json", root()), "utf8")) as { engines: { node: string } };
}

/** The directory of the package. */
function root(): URL {
  // Beside dist/, where the sources are not.
  return new URL(import.meta.url.endsWith(".ts") ? "../../" : "../../../", import.meta.url);
}

/** What guests behind sockets need. Where the system has no vhost-user, emulated guests are what there is. */
async function native(): Promise<Finding[]> {
  const { platform, arch } = process;
  if (platform !== "linux" || !["x64", "arm64"].includes(arch)) {
    const text = `needs Linux on x86-64 or arm64, this is ${platform} ${arch}: emulated guests only`;
    return [{ check: "vhost-user", status: "warn", text }];
  }
  const { nativeChecks } = await import("../guests/machine-check.ts");
  const about = {
    koffi: {
      good: "calls the C library",
      fix: "Run npm ci again, with optional dependencies; on another C library than glibc and musl it does not run.",
    },
    memory: {
      good: "memory files can be made, sealed and mapped",
      fix: "memfd_create and mmap must be allowed: look at the seccomp profile of the container, and at ulimit -v and -f.",
    },
    poller: {
      good: "eventfds can be waited for",
      fix: "epoll and eventfd must be allowed: look at the seccomp profile of the container, and at ulimit -n.",
    },
    sockets: {
      good: "Unix sockets can be made",
      fix: "The directory of temporary files (TMPDIR) must be writable, and AF_UNIX allowed.",
    },
  };
  const withoutKoffi = nativeChecks.koffi();
  return Object.entries(nativeChecks).map(([check, run]): Finding => {
    const { good, fix } = about[check as keyof typeof about];
    // It would fail for the same reason, and what is said to fix would be wrong.
    if (check !== "koffi" && withoutKoffi !== undefined)
      return { check, status: "warn", text: "not tried: that needs koffi" };
    const wrong = check === "koffi" ? withoutKoffi : run();
    return wrong === undefined
      ? { check, status: "ok", text: good }
      : { check, status: "fail", text: wrong, fix };
  });
}

function descriptors(): Finding {
  const check = "descriptors";
  if (Number.isNaN(mostDescriptors))
    return { check, status: "ok", text: "the system does not tell the limit" };
  const text = `the process may have ${mostDescriptors}`;
  if (mostDescriptors >= FEW_DESCRIPTORS) return { check, status: "ok", text };
  return { check, status: "warn", text, fix: "Raise it: ulimit -n 65536, or LimitNOFILE= of systemd." };
}

function addressSpace(): Finding {
  const check = "address space";
  const [, most = "unlimited"] = /^Max address space\s+(\S+)/m.exec(limits()) ?? [];
  const text = most === "unlimited" ? "unlimited" : `${most} bytes`;
  // Guest memory is mapped whole.
  if (most === "unlimited" || Number(most) >= 2 ** 34) return { check, status: "ok", text };
  return { check, status: "warn", text, fix: "The memory of guests is mapped whole: ulimit -v unlimited." };
}

function limits(): string {
  try {
    return readFileSync("/proc/self/limits", "utf8");
  } catch {
    return "";
  }
}

async function port(): Promise<Finding> {
  const check = "port";
  const code = await new Promise<string | undefined>((resolve) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen(PORT, "127.0.0.1", () => server.close(() => resolve(undefined)));
  });
  if (code === undefined) return { check, status: "ok", text: `127.0.0.1:${PORT} is free` };
  const fix = "Unless that is a bridge already: rpmsg-bridge serve --listen 127.0.0.1:0 takes a free one.";
  return { check, status: "warn", text: `127.0.0.1:${PORT}: ${code}`, fix };
}

function qemu(): Finding {
  const check = "qemu";
  const fix =
    "Only for real guests: npm run guest:fetch gets QEMU 11 and a kernel; see docs/attaching-qemu.md.";
  const found = [...QEMUS.map((name) => ({ name, command: name, args: [] })), fetchedQemu()].flatMap(
    ({ name, command, args }) => {
      const options = { encoding: "utf8", timeout: 20_000 } as const;
      const { status, stdout } = spawnSync(command, [...args, "-device", "help"], options);
      return status === 0 ? [{ name, able: stdout.includes(`"${QEMU_DEVICE}"`) }] : [];
    },
  );
  const able = found.find((each) => each.able);
  if (able !== undefined) return { check, status: "ok", text: `${able.name} has ${QEMU_DEVICE}` };
  const [old] = found;
  const text = old === undefined ? "not installed" : `${old.name} is too old: it has no ${QEMU_DEVICE}`;
  return { check, status: "warn", text, fix };
}

/** The one of npm run guest:fetch, which has a C library of its own. */
function fetchedQemu(): { name: string; command: string; args: string[] } {
  const directory = process.env["RPMSG_GUEST_DIR"] || fileURLToPath(new URL(".cache/linux-guest", root()));
  const usr = join(directory, "qemu/usr");
  const name = join(usr, "bin/qemu-system-arm");
  const args = ["--library-path", join(usr, "lib/x86_64-linux-gnu"), name];
  return { name, command: join(usr, "lib64/ld-linux-x86-64.so.2"), args };
}
