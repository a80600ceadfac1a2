// A real Linux guest for tests and benchmarks: the stock kernel that fetch.sh prepares, in QEMU (TCG), attached
// to a vhost-user socket as a virtio-rpmsg device. The first serial port is the kernel's console, the second one runs
// commands (scripts/linux-guest/init), and QMP carries the monitor; all three are inherited sockets, so there is nothing
// to clean up. QEMU ends with this process.
import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import type { Duplex, Readable } from "node:stream";
import { fileURLToPath } from "node:url";

/** rt-armmp is the PREEMPT_RT kernel; the plain one cannot take announcements while rpmsg_char is loaded. */
type GuestFlavour = "rt-armmp" | "armmp";

type Availability =
  | { readonly ok: true; readonly qemuRoot: string; readonly kernel: string; readonly initrd: string }
  | { readonly ok: false; readonly reason: string };

interface BootOptions {
  /** The bridge's listening vhost-user socket; without it the guest has no rpmsg device. */
  readonly socketPath?: string | undefined;
  readonly flavour?: GuestFlavour | undefined;
  readonly extraArgs?: readonly string[] | undefined;
  /** For example GUEST_MODULES=bus (see scripts/linux-guest/init). */
  readonly appendKernelArgs?: readonly string[] | undefined;
  readonly deadlineMs?: number | undefined;
}

interface Deadline {
  readonly deadlineMs?: number | undefined;
}

interface CommandResult {
  readonly status: number;
  readonly output: string;
}

interface QmpReply {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

type Source = "console" | "guest" | "qemu" | "host";

interface Line {
  readonly source: Source;
  readonly text: string;
  readonly seconds: number;
}

/** Compiled, this file is in dist/. */
const checkout = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../../" : "../../../", import.meta.url),
);
const scripts = join(checkout, "scripts/linux-guest");
const kernelFailure =
  /Kernel panic|\bBUG:|Internal error: Oops|scheduling while atomic|Unable to handle kernel|blocked for more than \d+ seconds/;

/** A command that runs in the guest. */
class GuestCommand {
  readonly id: number;
  readonly text: string;
  /** The lines it has written so far, standard error included. */
  readonly output: string[] = [];
  /** Its process group in the guest. */
  pid: number | undefined;
  status: number | undefined;
  readonly #guest: LinuxGuest;

  constructor(guest: LinuxGuest, id: number, text: string) {
    this.#guest = guest;
    this.id = id;
    this.text = text;
  }

  /** Its result, once it has ended. */
  async exit({ deadlineMs = 30_000 }: Deadline = {}): Promise<CommandResult> {
    const status = await this.#guest.until(`the end of "${this.text}"`, deadlineMs, () => this.status);
    return { status, output: this.output.join("\n") };
  }

  /** The first line of its output, written already or not, that matches. */
  waitForLine(pattern: RegExp, { deadlineMs = 30_000 }: Deadline = {}): Promise<RegExpMatchArray> {
    let next = 0;
    return this.#guest.until(`${pattern} from "${this.text}"`, deadlineMs, () => {
      for (; next < this.output.length; next++) {
        const match = this.output[next]?.match(pattern);
        if (match) return match;
      }
      return undefined;
    });
  }

  /** Sends a signal to the command and its children. */
  async signal(name: "TERM" | "KILL" | "INT" | "STOP" | "CONT" = "TERM"): Promise<void> {
    const pid = await this.#guest.until(`the start of "${this.text}"`, 30_000, () => this.pid);
    await this.#guest.run(`kill -${name} -- -${pid}`);
  }
}

/** guest-helper's agent: device handles that stay open between steps. Its usage text lists the commands. */
class GuestAgent {
  readonly #guest: LinuxGuest;
  readonly #process: GuestCommand;
  #sent = 0;

  constructor(guest: LinuxGuest, process: GuestCommand) {
    this.#guest = guest;
    this.#process = process;
  }

  /** One command, for example `open a /dev/rpmsg0`. Resolves with what follows OK; an ERR answer rejects. */
  async command(line: string, { deadlineMs = 30_000 }: Deadline = {}): Promise<string> {
    const answer = await this.answer(line, { deadlineMs });
    if (!answer.startsWith("OK")) throw new Error(`guest agent: ${line}: ${answer}`);
    return answer.slice(3);
  }

  /** The same, resolving with the whole answer, `ERR ...` included. */
  answer(line: string, { deadlineMs = 30_000 }: Deadline = {}): Promise<string> {
    // One line for each command, after the greeting.
    const index = ++this.#sent;
    this.#guest.send(`SEND ${this.#process.id} ${line}`);
    return this.#guest.until(
      `the agent's answer to "${line}"`,
      deadlineMs,
      () => this.#process.output[index],
    );
  }

  /** One read from an open handle. */
  async read(handle: string, timeoutMs = 5_000): Promise<Buffer> {
    const answer = await this.command(`read ${handle} ${timeoutMs}`, { deadlineMs: timeoutMs + 30_000 });
    return Buffer.from(answer.split(" ")[1] ?? "", "hex");
  }

  /** One write to an open handle. */
  async write(handle: string, data: string | Uint8Array): Promise<void> {
    await this.command(`write-hex ${handle} ${Buffer.from(data).toString("hex")}`);
  }
}

export class LinuxGuest {
  readonly #process: ChildProcess;
  readonly #port: Duplex;
  readonly #qmp: Duplex;
  readonly #started = performance.now();
  readonly #lines: Line[] = [];
  readonly #probes = new Set<() => void>();
  readonly #commands = new Map<number, GuestCommand>();
  readonly #replies = new Map<number, QmpReply>();
  #failure: string | undefined;
  #exit: string | undefined;
  #endExpected = false;
  #lastId = 0;

  static availability(flavour: GuestFlavour = "rt-armmp"): Availability {
    if (process.platform !== "linux" || process.arch !== "x64")
      return { ok: false, reason: "not an x86-64 Linux machine" };
    const directory = resolve(process.env["RPMSG_GUEST_DIR"] || join(checkout, ".cache/linux-guest"));
    const marker = join(directory, `ready-${flavour}`);
    const fetchIt = `run "FLAVOURS=${flavour} npm run guest:fetch"`;
    if (!existsSync(marker)) return { ok: false, reason: `no Linux guest in ${directory}: ${fetchIt}` };
    const hash = createHash("sha256");
    for (const name of ["fetch.sh", "build-tools.sh", "build-initrd.sh", "guest-helper.c", "init"]) {
      hash.update(readFileSync(join(scripts, name)));
    }
    if (readFileSync(marker, "utf8").trim() !== hash.digest("hex")) {
      return { ok: false, reason: `the Linux guest in ${directory} is older than its scripts: ${fetchIt}` };
    }
    const qemuRoot = join(directory, "qemu");
    const kernel = join(directory, `kernel-${flavour}`, "vmlinuz");
    const initrd = join(directory, `guest-${flavour}`, "initrd.gz");
    const missing = [qemuRoot, kernel, initrd].find((path) => !existsSync(path));
    return missing
      ? { ok: false, reason: `${missing} is missing: ${fetchIt}` }
      : { ok: true, qemuRoot, kernel, initrd };
  }

  /** Starts QEMU; resolves when the guest has loaded its modules and takes commands. */
  static async boot(options: BootOptions): Promise<LinuxGuest> {
    const available = LinuxGuest.availability(options.flavour);
    if (!available.ok) throw new Error(available.reason);
    const libraries = join(available.qemuRoot, "usr/lib/x86_64-linux-gnu");
    const child = spawn(
      join(available.qemuRoot, "usr/lib64/ld-linux-x86-64.so.2"),
      [
        ["--library-path", libraries, join(available.qemuRoot, "usr/bin/qemu-system-arm")],
        ["-L", join(available.qemuRoot, "usr/share/qemu"), "-run-with", "exit-with-parent=on"],
        ["-M", "virt,highmem=off,memory-backend=mem0", "-cpu", "cortex-a15", "-accel", "tcg"],
        ["-smp", "1", "-m", "256"],
        ["-object", "memory-backend-memfd,id=mem0,size=256M,share=on"],
        ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
        ["-chardev", "socket,id=console,fd=3", "-serial", "chardev:console"],
        ["-chardev", "socket,id=port,fd=4", "-serial", "chardev:port"],
        ["-chardev", "socket,id=qmp,fd=5", "-object", "monitor-qmp,id=monitor,chardev=qmp"],
        ["-kernel", available.kernel, "-initrd", available.initrd],
        ["-append", ["console=ttyAMA0 panic=-1 loglevel=5", ...(options.appendKernelArgs ?? [])].join(" ")],
        options.socketPath === undefined ? [] : deviceArgs(options.socketPath),
        options.extraArgs ?? [],
      ].flat(),
      {
        env: { ...process.env, QEMU_MODULE_DIR: join(libraries, "qemu") },
        stdio: ["ignore", "pipe", "pipe", "pipe", "pipe", "pipe"],
      },
    );
    const guest = new LinuxGuest(child);
    try {
      await guest.#start(options.deadlineMs ?? 120_000);
    } catch (error) {
      await guest.kill();
      throw error;
    }
    return guest;
  }

  private constructor(child: ChildProcess) {
    this.#process = child;
    // stdio's "pipe" is a socket pair, in both directions.
    const [, stdout, stderr, console, port, qmp] = child.stdio as unknown as [
      null,
      Readable,
      Readable,
      Duplex,
      Duplex,
      Duplex,
    ];
    this.#port = port;
    this.#qmp = qmp;
    this.#readLines(stdout, (text) => this.#log("qemu", text));
    this.#readLines(stderr, (text) => this.#log("qemu", text));
    this.#readLines(console, (text) => this.#log("console", text));
    this.#readLines(port, (text) => this.#portLine(text));
    this.#readLines(qmp, (text) => this.#qmpLine(text));
    child.once("error", (error) => this.#ended(`cannot start: ${error.message}`));
    // close comes after the last line of every stream.
    child.once("close", (code, signal) => this.#ended(signal ?? `status ${code}`));
  }

  /** QEMU's process. */
  get pid(): number {
    return this.#process.pid as number;
  }

  /** Everything the guest, its kernel and QEMU have said, for a failing test to print. */
  get transcript(): string {
    return this.#lines.map(format).join("\n");
  }

  /** The current end of the transcript, for waitForLine's `from`. */
  get mark(): number {
    return this.#lines.length;
  }

  /** A kernel panic or BUG line, or an end of QEMU that nobody asked for. Every wait rejects from then on. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Runs a shell command to its end. Lines come back whole; other commands' output is never mixed in. */
  run(command: string, deadline: Deadline = {}): Promise<CommandResult> {
    return this.background(command).exit(deadline);
  }

  /** Starts a shell command. */
  background(command: string): GuestCommand {
    return this.#startCommand("RUN", command);
  }

  /** Starts guest-helper's agent. */
  async agent(): Promise<GuestAgent> {
    const command = this.#startCommand("TALK", "exec guest-helper agent");
    await command.waitForLine(/^OK agent$/);
    return new GuestAgent(this, command);
  }

  /** The first console or output line since `from` (by default since boot) that matches. */
  waitForLine(
    pattern: RegExp,
    { from = 0, deadlineMs = 30_000 }: Deadline & { readonly from?: number } = {},
  ): Promise<RegExpMatchArray> {
    let next = from;
    return this.until(`${pattern}`, deadlineMs, () => {
      for (; next < this.#lines.length; next++) {
        const line = this.#lines[next];
        const match =
          line?.source === "console" || line?.source === "guest" ? line.text.match(pattern) : undefined;
        if (match) return match;
      }
      return undefined;
    });
  }

  /** A command of QEMU's human monitor, for example stop, cont, info status. Resolves with its output. */
  async monitor(command: string, { deadlineMs = 30_000 }: Deadline = {}): Promise<string> {
    const result = await this.#qmpCommand("human-monitor-command", { "command-line": command }, deadlineMs);
    return typeof result === "string" ? result.replaceAll("\r\n", "\n").trimEnd() : "";
  }

  /** Powers the guest off and waits for QEMU's end; rejects if that is not a clean one. */
  async powerOff({ deadlineMs = 30_000 }: Deadline = {}): Promise<void> {
    this.#endExpected = true;
    this.background("poweroff -f");
    const exit = await this.until("the guest's power-off", deadlineMs, () => this.#exit);
    if (exit !== "status 0") throw new Error(`QEMU ended with ${exit}\n${this.transcript}`);
  }

  /** Ends QEMU at once. May be called again, and after powerOff. */
  async kill(): Promise<void> {
    if (this.#exit !== undefined) return;
    this.#endExpected = true;
    const closed = new Promise<void>((done) => this.#process.once("close", () => done()));
    this.#process.kill("SIGKILL");
    await closed;
  }

  /** Resolves with the first value other than undefined that `probe` gives; it is called again after every line. */
  until<T>(what: string, deadlineMs: number, probe: () => T | undefined): Promise<T> {
    return new Promise((resolvePromise, reject) => {
      const settle = (action: () => void) => {
        clearTimeout(timer);
        this.#probes.delete(check);
        action();
      };
      const fail = (problem: string) =>
        settle(() => reject(new Error(`waiting for ${what}: ${problem}; the last lines:\n${this.#tail()}`)));
      const check = () => {
        const value = probe();
        if (value !== undefined) settle(() => resolvePromise(value));
        else if (this.#failure !== undefined) fail(this.#failure);
        else if (this.#exit !== undefined) fail("the guest is off");
      };
      const timer = setTimeout(() => fail(`nothing within ${deadlineMs} ms`), deadlineMs);
      this.#probes.add(check);
      check();
    });
  }

  /** One line for init. */
  send(line: string): void {
    if (line.includes("\n")) throw new Error(`a guest command is one line: ${JSON.stringify(line)}`);
    this.#log("host", line);
    this.#port.write(`${line}\n`);
  }

  async #start(deadlineMs: number): Promise<void> {
    const end = performance.now() + deadlineMs;
    await this.#qmpCommand("qmp_capabilities", {}, deadlineMs);
    await this.waitForLine(/^READY /, { deadlineMs: end - performance.now() });
  }

  #startCommand(verb: "RUN" | "TALK", text: string): GuestCommand {
    const command = new GuestCommand(this, ++this.#lastId, text);
    this.#commands.set(command.id, command);
    this.send(`${verb} ${command.id} ${text}`);
    return command;
  }

  async #qmpCommand(
    execute: string,
    args: Readonly<Record<string, unknown>>,
    deadlineMs: number,
  ): Promise<unknown> {
    const id = ++this.#lastId;
    this.#qmp.write(`${JSON.stringify({ execute, arguments: args, id })}\n`);
    const reply = await this.until(`QEMU's answer to ${execute}`, deadlineMs, () => this.#replies.get(id));
    if (reply.error) throw new Error(`QEMU: ${execute}: ${reply.error.desc}`);
    return reply.return;
  }

  #readLines(input: Readable, handle: (text: string) => void): void {
    // A reset or a broken pipe is the same as the end here; QEMU's exit tells.
    input.on("error", () => undefined);
    createInterface({ input })
      .on("line", handle)
      .on("error", () => undefined);
  }

  #portLine(text: string): void {
    const [, verb, id, rest] = text.match(/^(START|OUT|DONE) (\d+) (.*)$/) ?? [];
    const command = this.#commands.get(Number(id));
    if (verb === "OUT") command?.output.push(rest ?? "");
    if (verb === "START" && command) command.pid = Number(rest);
    if (verb === "DONE" && command) command.status = Number(rest);
    this.#log("guest", verb === "OUT" ? (rest ?? "") : text);
  }

  #qmpLine(text: string): void {
    const message = JSON.parse(text) as QmpReply;
    if (message.id !== undefined) this.#replies.set(message.id, message);
    this.#log("qemu", text);
  }

  #ended(how: string): void {
    this.#exit = how;
    if (!this.#endExpected) this.#failure ??= `QEMU ended (${how})`;
    this.#log("qemu", `QEMU ended: ${how}`);
  }

  #log(source: Source, text: string): void {
    this.#lines.push({ source, text, seconds: (performance.now() - this.#started) / 1000 });
    if (source === "console" && kernelFailure.test(text)) this.#failure ??= `the kernel failed: ${text}`;
    for (const probe of this.#probes) probe();
  }

  #tail(): string {
    return this.#lines.slice(-30).map(format).join("\n");
  }
}

function deviceArgs(socketPath: string): string[] {
  // QEMU splits at commas.
  const path = socketPath.replaceAll(",", ",,");
  return [
    "-chardev",
    `socket,id=rpmsg,path=${path}`,
    "-device",
    "vhost-user-test-device-pci,chardev=rpmsg,virtio-id=7,num_vqs=2,vq_size=256",
  ];
}

function format({ source, text, seconds }: Line): string {
  return `[${seconds.toFixed(3).padStart(8)}] ${source.padEnd(7)} ${text}`;
}
