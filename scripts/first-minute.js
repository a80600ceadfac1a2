// The first minute of a newcomer, measured: `git clone`, the first commands of README.md as they are written there, the
// last of them on a terminal; then a browser opens the address that it printed, a click on the sensor, and the plot has
// to move. Tells the seconds after the start at each step, and ends with exit code 1 where that took over a minute.
// npm run first-minute -- [--cold] [--here] [--within SECONDS] [REPOSITORY]
//   --cold      npm begins with an empty cache
//   --here      no clone and only the last command: this checkout as it is, which has to be built
//   REPOSITORY  what is cloned, in place of the last commit of this checkout
// The browser is open before the clock starts, and the bridge takes a free port: nothing else is other than by hand.
// CHROMIUM names another browser than Debian's.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Milliseconds until it is given up: how far beyond the limit it takes is worth knowing. */
const PATIENCE = 600_000;
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cold: { type: "boolean", default: false },
    here: { type: "boolean", default: false },
    within: { type: "string", default: "60" },
  },
});
const [repository = pathToFileURL(ROOT).href] = positionals;
const limit = Number(options.within);

const folder = mkdtempSync(join(tmpdir(), "first-minute-"));
const clone = join(folder, "rpmsg-bridge");
/** What is running: its process, and how it is ended. */
const running = new Set();
const interrupted = new AbortController();
for (const signal of ["SIGHUP", "SIGINT", "SIGTERM"]) {
  process.on(signal, () => interrupted.abort(new Error(`interrupted (${signal})`)));
}
const patience = setTimeout(
  () => interrupted.abort(new Error(`given up after ${PATIENCE / 1000} s`)),
  PATIENCE,
);

let start = performance.now();
const elapsed = () => (performance.now() - start) / 1000;
const step = (text) => console.log(`${elapsed().toFixed(1).padStart(6)} s  ${text}`);

/** The commands of the first block of README.md that is for a shell, in order. */
function quickStart(directory) {
  const [, line = ""] = /^```sh\n(.*)$/m.exec(readFileSync(join(directory, "README.md"), "utf8")) ?? [];
  const commands = line.replace(/\s+#.*/, "").split(" && ");
  if (commands.at(-1) !== "npm start") {
    throw new Error(`README.md: the first line for a shell does not end with npm start: ${line || "(none)"}`);
  }
  return commands;
}

/** What a newcomer's shell has: nothing of the `npm run` that started this. */
function environment() {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^npm_(package|lifecycle|command|execpath|config_local_prefix)|^INIT_CWD$/.test(name),
  );
  const path = (process.env.PATH ?? "").split(delimiter).filter((each) => !each.includes("node_modules"));
  const cache = options.cold ? { npm_config_cache: join(folder, "npm-cache") } : {};
  return { ...Object.fromEntries(kept), PATH: path.join(delimiter), ...cache };
}

/** Starts a program in a group of its own; `shown` is what it has written. */
function launch(program, args, { cwd, env = {} }) {
  interrupted.signal.throwIfAborted();
  const child = spawn(program, args, { cwd, env: { ...environment(), ...env }, detached: true });
  const told = { child, shown: "", more: () => {} };
  running.add(told);
  child.stdin.on("error", () => {});
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (part) => {
      told.shown += part;
      told.more();
    });
  }
  told.ended = once(child, "close").then(
    ([code, signal]) => signal ?? `exit code ${code}`,
    (error) => error.message,
  );
  void told.ended.then(() => {
    running.delete(told);
    told.more();
  });
  return told;
}

/** The same for what is to be over, and well. */
async function run(name, program, args, cwd) {
  const told = launch(program, args, { cwd });
  const ended = await told.ended;
  if (ended !== "exit code 0") throw new Error(`${name}: ${ended}\n${told.shown.trim()}`);
  step(name);
}

/** A command on a terminal, until it has printed the dashboard's address. @returns that */
async function startOnTerminal(command, cwd) {
  // The shell's number is that of the group of all that runs on the terminal.
  const group = join(folder, "group");
  const line = `echo $$ > '${group}'; exec ${command}`;
  const told = launch("script", ["--quiet", "--return", "--flush", "--command", line, "/dev/null"], {
    cwd,
    env: { RPMSG_BRIDGE_LISTEN: "127.0.0.1:0", SHELL: "/bin/sh", NO_COLOR: "1" },
  });
  told.group = group;
  for (;;) {
    const [, url] = /Dashboard: (http:\S+)\s/.exec(told.shown) ?? [];
    if (url !== undefined) return url;
    if (!running.has(told)) throw new Error(`${command}: ${await told.ended}\n${told.shown.trim()}`);
    await new Promise((resolve) => {
      told.more = resolve;
    });
  }
}

function killGroup(number) {
  try {
    process.kill(-number, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

/** Ctrl-c on a terminal; what does not end by it, or has none, is killed with all that it started. */
async function end({ child, ended, group }) {
  if (group === undefined) {
    if (child.pid !== undefined) killGroup(child.pid);
    await ended;
    return;
  }
  child.stdin.write("\u0003");
  const late = setTimeout(() => {
    if (existsSync(group)) killGroup(Number(readFileSync(group, "utf8")));
    killGroup(child.pid);
  }, 10_000);
  await ended;
  clearTimeout(late);
}

/** Opens the address as a person does, and waits for each thing that such a person sees. */
async function look(browser, url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(url);
  const sensor = page.getByRole("row").getByRole("link", { name: "sensor", exact: true });
  await sensor.waitFor();
  step("the page shows the endpoints");
  await sensor.click();
  // "drawing N of M messages"
  await page.locator(".tally b").nth(1).filter({ hasText: /[1-9]/ }).waitFor();
  step("the first live message of the sensor");
  const plot = page.locator(".charts canvas").first();
  await plot.waitFor();
  const picture = await plot.evaluate((canvas) => canvas.toDataURL());
  const value = page.getByRole("img", { name: /^temperature: now [0-9]/ });
  const first = await value.getAttribute("aria-label");
  await page.waitForFunction(
    ([oldPicture, oldValue]) =>
      document.querySelector(".charts canvas")?.toDataURL() !== oldPicture &&
      document.querySelector('[role="img"][aria-label^="temperature"]')?.ariaLabel !== oldValue,
    [picture, first],
  );
  step("the plot moves");
}

async function measure(browser) {
  const directory = options.here ? ROOT : clone;
  start = performance.now();
  if (!options.here) {
    await run(`git clone ${repository}`, "git", ["clone", "--quiet", repository, clone], folder);
  }
  const commands = quickStart(directory);
  const last = commands.pop();
  for (const command of options.here ? [] : commands) await run(command, "sh", ["-c", command], directory);
  const url = await startOnTerminal(last, directory);
  step(`${last}: ${url}`);
  await look(browser, url);
}

let browser;
try {
  if (!(limit > 0)) throw new Error(`--within ${options.within}: not a number of seconds`);
  try {
    accessSync(BROWSER, constants.X_OK);
  } catch {
    throw new Error(`no browser at ${BROWSER}: apt-get install chromium, or name one with CHROMIUM=`);
  }
  if (options.cold) mkdirSync(join(folder, "npm-cache"));
  browser = await chromium.launch({
    executablePath: BROWSER,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
    ...{ handleSIGHUP: false, handleSIGINT: false, handleSIGTERM: false },
  });
  const given = once(interrupted.signal, "abort").then(() => Promise.reject(interrupted.signal.reason));
  given.catch(() => {});
  await Promise.race([measure(browser), given]);
  const seconds = elapsed();
  const machine = `${availableParallelism()} × ${cpus()[0]?.model.trim()}, Node ${process.version}`;
  const cache = options.here ? "" : `, ${options.cold ? "an empty npm cache" : "this machine's npm cache"}`;
  const verdict = seconds <= limit ? "within" : "MORE THAN";
  console.log(`live data after ${seconds.toFixed(1)} s, ${verdict} ${limit} s (${machine}${cache})`);
  if (seconds > limit) process.exitCode = 1;
} catch (error) {
  console.error(`first-minute: ${error.message}`);
  process.exitCode = 1;
} finally {
  clearTimeout(patience);
  for (const told of running) await end(told);
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
}
