import { describe, expect, test } from "vitest";
import { logLine } from "../../server/cli/log-lines.ts";
import { welcomeText } from "../../server/cli/welcome.ts";
import { Command, Terminal, terminals } from "./cli-support.ts";
import { testBridge } from "./support.ts";

const SLOW = 60_000;

describe.skipIf(!terminals)("serve on a terminal", { timeout: SLOW }, () => {
  test("tells where it is and what there is, and each of the three lines works", async () => {
    const terminal = new Terminal("rpmsg-bridge serve --listen 127.0.0.1:0", { NO_COLOR: "1" });
    const shown = await terminal.expect("Ctrl-c ends it.");
    const [, url = ""] = /Dashboard: (http:\/\/127\.0\.0\.1:\d+)\/\r?\n/.exec(shown) ?? [];
    expect(url).not.toBe("");
    for (const name of ["echo", "tty", "sensor", "source", "sink"]) {
      expect(shown).toMatch(new RegExp(`demo/${name} +connected +/ws/v1/demo/${name}\\r?\\n`));
    }
    const lines = [...shown.matchAll(/^ {4}npx rpmsg-bridge (.*)\r?$/gm)].map(([, line = ""]) => line.trim());
    expect(lines).toEqual([
      `connect demo/tty --url ${url}`,
      `send demo/echo hello --wait --url ${url}`,
      `dump --url ${url}`,
    ]);
    const [connect = [], send = [], dump = []] = lines.map((line) => line.split(" "));
    const watching = Command.start([...dump, "--count", "1"]);
    const console = new Terminal(`rpmsg-bridge ${connect.join(" ")}`);
    await console.expect("ctrl-] leaves");
    console.type("help\r");
    await console.expect("commands:");
    let seen = false;
    void watching.finished.then(() => {
      seen = true;
    });
    // Until it has begun there is nothing to see.
    while (!seen) expect((await Command.run(send)).stdout).toBe("hello\n");
    expect((await watching.finished).stdout).toContain("demo/");
    terminal.type("\u0003");
    // The log is for people here.
    expect(await terminal.expect("stopped")).toMatch(/\d\d:\d\d:\d\d {2}info {3}stopping {2}signal=SIGINT/);
  });
});

test("without a terminal, a line of JSON, and JSON in the log", { timeout: SLOW }, async () => {
  const command = Command.start(["serve", "--listen", "127.0.0.1:0"], {
    environment: { RPMSG_BRIDGE_LOG_LEVEL: "info" },
  });
  expect(JSON.parse(await command.line())).toMatchObject({ event: "listening" });
  const { stdout, stderr } = await command.kill("SIGTERM");
  expect(stdout.trim().split("\n")).toHaveLength(1);
  const events = stderr
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { event: string }).event);
  expect(events).toContain("stopping");
});

describe("what is told", () => {
  const facts = async () => {
    const running = await testBridge({
      guests: { demo: { kind: "emulated", endpoints: [{ name: "it's mine" }] }, other: { kind: "emulated" } },
    });
    const { bridge, url } = running;
    return { url, guests: bridge.guests(), endpoints: bridge.directory.list().endpoints };
  };

  test("at the usual address no address is needed; with tokens one is", async () => {
    const { guests, endpoints } = await facts();
    const usual = welcomeText({ url: "http://127.0.0.1:8080", guests, endpoints, asksForToken: true });
    expect(usual).not.toContain("--url");
    expect(usual).toContain("    export RPMSG_BRIDGE_TOKEN=...\n");
    expect(usual).toMatch(/ {2}demo\/echo +connected/);
  });

  test("many endpoints are not all listed, and names are as a shell takes them", async () => {
    const { url, guests, endpoints } = await facts();
    const many = Array.from({ length: 40 }, () => endpoints).flat();
    const text = welcomeText({ url, guests, endpoints: many, asksForToken: false });
    expect(text.split("\n").length).toBeLessThan(30);
    expect(text).toContain(`and ${many.length - 12} more`);
    const [mine] = endpoints.filter(({ name }) => name === "it's mine");
    const only = welcomeText({ url, guests, endpoints: mine ? [mine] : [], asksForToken: false });
    expect(only).toContain("send 'demo/it'\\''s mine' hello --wait");
  });

  test("a guest without endpoints is there too, and everywhere is seen from here", async () => {
    const { guests } = await facts();
    const text = welcomeText({ url: "http://0.0.0.0:9000", guests, endpoints: [], asksForToken: false });
    expect(text).toContain("Dashboard: http://127.0.0.1:9000/");
    expect(text).toMatch(/^ {2}other +attached$/m);
    expect(welcomeText({ url: "unix:/run/b.sock", guests, endpoints: [], asksForToken: false })).toContain(
      "Listens on unix:/run/b.sock",
    );
  });

  test("a line of the log", () => {
    const line = { level: 40, time: 0, event: "queue-broken", guest: "vm0", reason: "two words", n: 3 };
    expect(logLine(JSON.stringify(line))).toMatch(
      /^\d\d:\d\d:\d\d {2}warn {3}queue-broken {2}guest=vm0 {2}reason="two words" {2}n=3\n$/,
    );
    expect(
      logLine(JSON.stringify({ level: 50, time: 0, event: "internal-error", stack: "at a\nat b" })),
    ).toMatch(/internal-error\nat a\nat b\n$/);
  });
});
