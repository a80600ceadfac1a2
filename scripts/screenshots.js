// Takes the screenshots of the README and of docs/dashboard.md: a bridge with the emulated guest and a socket that waits
// for a virtual machine, some traffic, and Debian's chromium.
// npm run build && node scripts/screenshots.js
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";
import { connect } from "../dist/client/index.js";

const SECONDS = 50;
const WIDTH = 1120;
const folder = fileURLToPath(new URL("../docs/images/", import.meta.url));
mkdirSync(folder, { recursive: true });

const main = fileURLToPath(new URL("../dist/server/main.js", import.meta.url));
const socket = join(tmpdir(), `screenshots-${process.pid}.sock`);
const guests = [
  "--guest",
  "demo=emulated",
  "--guest",
  `vm0=vhost-user:${socket}`,
  "--announce",
  "vm0/rpmsg-raw",
];
const bridge = spawn(process.execPath, [main, "serve", "--listen", "127.0.0.1:0", ...guests], {
  stdio: ["ignore", "pipe", "inherit"],
});
const [line] = await once(createInterface({ input: bridge.stdout }), "line");
const { url } = JSON.parse(line);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
const pages = new Map();

/** A page of the dashboard, in light or dark. */
async function open(name, place, colorScheme, height) {
  const context = await browser.newContext({ viewport: { width: WIDTH, height }, colorScheme });
  const page = await context.newPage();
  await page.goto(`${url}/${place}`);
  pages.set(name, page);
  return page;
}

try {
  const channel = (name) => connect(`${url}/ws/v1/demo/${name}`, { WebSocket });
  const [echo, sensor, sink] = await Promise.all([channel("echo"), channel("sensor"), channel("sink")]);
  await sensor.send("start 50");
  await open("overview", "#/", "light", 750);
  await open("sensor", "#/ws/v1/demo/sensor", "dark", 740);
  // What charts show needs time: more and fewer messages, a look every second.
  for (let tick = 0; tick < SECONDS * 10; tick++) {
    const count = Math.round(12 + 9 * Math.sin(tick / 60) + 6 * Math.random());
    const sent = [];
    for (let i = 0; i < count; i++) sent.push((i % 3 === 0 ? sink : echo).send(`reading ${i}`));
    await Promise.all(sent);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  for (const name of ["overview", "sensor"])
    await pages.get(name).screenshot({ path: `${folder}${name}.png` });

  const console_ = await open("console", "#/ws/v1/demo/echo?view=console", "light", 1140);
  const field = console_.getByRole("textbox", { name: "Message", exact: true });
  const say = async (text) => {
    await field.fill(text);
    await field.press("Enter");
    await console_.locator(".row.from", { hasText: text }).first().waitFor();
  };
  await console_.getByText("Connecting…").waitFor({ state: "detached" });
  // A rate takes two looks at the counters.
  await console_.getByText("– messages/s").first().waitFor({ state: "detached" });
  for (const text of [
    "hello",
    "led on",
    "Grüße an die Firmware",
    '{"motor":"left","rpm":1450,"limits":{"amps":2.5}}',
  ]) {
    await say(text);
  }
  await console_.getByRole("group", { name: "Payload as" }).getByRole("radio", { name: "json" }).check();
  await console_.locator(".row.from").last().click();
  await field.fill('{"motor":"left","rpm":0}');
  await console_.screenshot({ path: `${folder}console.png` });

  const terminal = await open("terminal", "#/ws/v1/demo/tty", "dark", 840);
  await terminal.locator(".xterm-rows").waitFor();
  for (const typed of ["help", "uname", "whoami", "echo rpmsg in the browser"]) {
    await terminal.keyboard.type(typed);
    await terminal.keyboard.press("Enter");
  }
  await terminal.locator(".xterm-rows", { hasText: "rpmsg in the browser" }).waitFor();
  // What is typed comes back from the guest, and is drawn a frame later.
  await terminal.waitForTimeout(1000);
  await terminal.screenshot({ path: `${folder}terminal.png` });
  for (const each of [echo, sensor, sink]) each.close();
  console.log([...pages.keys()].map((name) => `${folder}${name}.png`).join("\n"));
} finally {
  await browser.close();
  bridge.kill("SIGTERM");
}
