// How the dashboard fares while a guest sends to it all the time: a bridge, an emulated guest of another process, and
// Debian's chromium with the page of the endpoint. Of each view it tells what the page was like, as the browser saw it.
// npm run build && node scripts/dashboard-load.js [MESSAGES A SECOND] [SECONDS A VIEW]
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { EmulatedGuest, service } from "../dist/guest/index.js";

const [rate = 20_000, seconds = 15] = process.argv.slice(2, 4).map(Number);
const [, self, , , guestSocket] = process.argv;
/** Messages in a turn, at most. */
const BURST = 240;
/** Milliseconds between two clicks. */
const CLICKS = 700;
/** Views, and what is clicked in them in turn. */
const views = {
  console: [1, 2, 0].map((nth) => `.console > .bar fieldset input >> nth=${nth}`),
  plot: ["fieldset.bar input >> nth=0", "fieldset.bar input >> nth=1"],
  terminal: ["summary", "summary"],
};

if (guestSocket !== undefined) await beGuest(guestSocket);

const folder = mkdtempSync(join(tmpdir(), "dashboard-load-"));
const socket = join(folder, "board.sock");
const main = fileURLToPath(new URL("../dist/server/main.js", import.meta.url));
const listen = ["serve", "--listen", "127.0.0.1:0", "--guest", `board=vhost-user:${socket}`];
const bridge = spawn(process.execPath, [main, ...listen], { stdio: ["ignore", "pipe", "inherit"] });
const [line] = await once(createInterface({ input: bridge.stdout }), "line");
const { url } = JSON.parse(line);

const guest = spawn(process.execPath, [self, rate, seconds, socket], { stdio: "inherit" });
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

/** In the page: notes long tasks, frames, and how long after a click the page has painted what came of it. */
function watchPage() {
  const seen = { tasks: [], frames: [], clicks: [], since: performance.now() };
  globalThis.seen = seen;
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) seen.tasks.push(duration);
  }).observe({ type: "longtask" });
  const frame = (time) => {
    seen.frames.push(time);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  const painted = new MessageChannel();
  const waiting = [];
  painted.port1.addEventListener("message", () => seen.clicks.push(performance.now() - waiting.shift()));
  painted.port1.start();
  addEventListener(
    "click",
    ({ timeStamp }) =>
      requestAnimationFrame(() => {
        waiting.push(timeStamp);
        painted.port2.postMessage(0);
      }),
    { capture: true },
  );
}

const sorted = (values) => values.toSorted((a, b) => a - b);
const at = (values, q) => sorted(values)[Math.min(Math.floor(values.length * q), values.length - 1)] ?? 0;

/** What the console's line says came of all messages. */
async function tally(page) {
  const text = await page.locator(".tally").textContent();
  const of = (pattern) => Number((pattern.exec(text)?.[1] ?? "0").replaceAll(",", ""));
  return { text, came: of(/ of ([\d,]+) messages/), dropped: of(/; ([\d,]+) more were dropped/) };
}

async function measure(view) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.goto(`${url}/#/ws/v1/board/stream?view=console`);
  const field = page.getByRole("textbox", { name: "Message", exact: true });
  await field.fill("start");
  await page.getByText("Connecting…").waitFor({ state: "detached" });
  await field.press("Enter");
  await page.locator(".row.from").first().waitFor();
  await page.getByRole("tab", { name: view }).click();
  const first = views[view][0];
  await page.locator(first).waitFor();
  // Where to click: a driver that asks the page every time waits for it, and no hand does.
  const boxes = await Promise.all(views[view].map((place) => page.locator(place).boundingBox()));
  await page.evaluate(watchPage);
  const { endpoints } = await (await fetch(`${url}/api/v1/endpoints`)).json();
  const sent = async () => {
    const answer = await fetch(`${url}/api/v1/guests/board/endpoints/${endpoints[0].id}`);
    return (await answer.json()).counters.messagesFromGuest;
  };
  const [from, start] = [await sent(), performance.now()];
  for (let i = 0; performance.now() - start < seconds * 1000; i++) {
    const { x, y, width, height } = boxes[i % boxes.length];
    await page.mouse.click(x + Math.min(width, 60) / 2, y + height / 2);
    await new Promise((resolve) => setTimeout(resolve, CLICKS));
  }
  const elapsed = (performance.now() - start) / 1000;
  const perSecond = ((await sent()) - from) / elapsed;
  const { tasks, frames, clicks } = await page.evaluate(() => globalThis.seen);
  const gaps = frames.slice(1).map((time, i) => time - frames[i]);
  await page.getByRole("tab", { name: "console" }).click();
  const { text, came, dropped } = await tally(page);
  await page.close();
  console.log(
    JSON.stringify({
      view,
      seconds: Math.round(elapsed),
      "from the guest, a second": Math.round(perSecond),
      "frames a second": Math.round(frames.length / elapsed),
      "longest without a frame, ms": Math.round(Math.max(...gaps)),
      "tasks over 50 ms": tasks.length,
      "longest task, ms": tasks.length === 0 ? "under 50" : Math.round(Math.max(...tasks)),
      clicks: clicks.length,
      "click to picture, median ms": Math.round(at(clicks, 0.5)),
      "click to picture, longest ms": Math.round(Math.max(...clicks)),
      "came, of all": `${((came / (came + dropped)) * 100).toFixed(1)} %`,
    }),
  );
  console.log(`  ${text}`);
}

/** The process of the guest: messages of JSON, so many a second, to whoever has said "start" last, for good. */
async function beGuest(path) {
  const stream = service(({ every, send }) => {
    let stop;
    return ({ text, src }) => {
      stop?.();
      if (text !== "start") return;
      const start = performance.now();
      let sent = 0;
      stop = every(2, () => {
        const due = Math.floor(((performance.now() - start) / 1000) * rate);
        // What would not fit in the rings when this process was late, the next turns send.
        for (const end = Math.min(due, sent + BURST); sent < end; sent++) {
          const value = Math.sin(sent / rate).toFixed(4);
          send(`{"number":${sent},"value":${value},"load":${(sent % 100) / 100}}\r\n`, src);
        }
      });
    };
  });
  await new EmulatedGuest({
    services: { stream },
    // What does not fit is seen in the figures.
    onError: () => {},
  })
    .connect(path)
    .attached();
  await once(process, "SIGTERM");
  process.exit(0);
}

try {
  for (const view of Object.keys(views)) await measure(view);
} finally {
  await browser.close();
  guest.kill("SIGTERM");
  bridge.kill("SIGTERM");
  await once(bridge, "exit");
  rmSync(folder, { recursive: true });
}
