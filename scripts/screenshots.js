// Takes the screenshots of the README: a bridge with the emulated guest, some traffic, and Debian's chromium.
// npm run build && node scripts/screenshots.js
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";
import { connect } from "../dist/client/index.js";

const SECONDS = 40;
const size = { width: 1120, height: 660 };
const folder = fileURLToPath(new URL("../docs/images/", import.meta.url));
mkdirSync(folder, { recursive: true });

const bridge = spawn(
  process.execPath,
  [fileURLToPath(new URL("../dist/server/main.js", import.meta.url)), "serve", "--listen", "127.0.0.1:0"],
  { stdio: ["ignore", "pipe", "inherit"] },
);
const [line] = await once(createInterface({ input: bridge.stdout }), "line");
const { url } = JSON.parse(line);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

/** A page of the dashboard, in light or dark. */
async function open(place, colorScheme) {
  const context = await browser.newContext({ viewport: size, colorScheme });
  const page = await context.newPage();
  await page.goto(`${url}/${place}`);
  return page;
}

try {
  const channel = (name) => connect(`${url}/ws/v1/demo/${name}`, { WebSocket });
  const [echo, sensor, sink] = await Promise.all([channel("echo"), channel("sensor"), channel("sink")]);
  await sensor.send("start 50");
  const overview = await open("#/", "light");
  const plot = await open("#/ws/v1/demo/sensor", "dark");
  // What charts show needs time: more and fewer messages, a look every second.
  for (let tick = 0; tick < SECONDS * 10; tick++) {
    const count = Math.round(12 + 9 * Math.sin(tick / 40) + 6 * Math.random());
    const sent = [];
    for (let i = 0; i < count; i++) sent.push((i % 3 === 0 ? sink : echo).send(`reading ${i}`));
    await Promise.all(sent);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await overview.screenshot({ path: `${folder}overview.png` });
  await plot.screenshot({ path: `${folder}sensor.png` });
  for (const each of [echo, sensor, sink]) each.close();
  console.log(`${folder}overview.png, sensor.png`);
} finally {
  await browser.close();
  bridge.kill("SIGTERM");
}
