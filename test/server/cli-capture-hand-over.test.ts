import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readMessage } from "../../server/capture/message.ts";
import type { CapturedItem } from "../../server/capture/pcapng-reader.ts";
import { PcapngReader } from "../../server/capture/pcapng-reader.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { Command } from "./cli-support.ts";
import { Dynasty } from "./hand-over-support.ts";
import { JsonClient } from "./json-client.ts";
import { eventually, testDirectory } from "./support.ts";

/** The sections of a file that is whole. */
function sectionsOf(path: string): CapturedItem[][] {
  const reader = new PcapngReader();
  const sections: CapturedItem[][] = [];
  for (const item of reader.read(readFileSync(path))) {
    if (item.kind === "section") sections.push([]);
    sections.at(-1)?.push(item);
  }
  reader.end();
  return sections;
}

/** The messages of a section, and what it says of their number at its end. */
function shown(items: readonly CapturedItem[]) {
  const messages = items.flatMap((item) =>
    item.kind === "message" ? (readMessage(item.message) ?? []) : [],
  );
  const last = items.at(-1);
  return {
    texts: messages.map(({ payload }) => payload.toString()),
    counted: last?.kind === "statistics" ? [last.received, last.dropped] : undefined,
  };
}

/** A bridge, its guest, and what follows the messages of `echo` there, over a hand-over. */
async function scene(...args: string[]) {
  const { dynasty, first } = await Dynasty.found();
  await dynasty.attach();
  await dynasty.endpoint("echo");
  const command = Command.start([...args, "--endpoint", "vm/echo"], {
    environment: { RPMSG_BRIDGE_URL: dynasty.url },
  });
  const runs = () =>
    eventually("it runs", async () => {
      const metrics = await (await fetch(`${dynasty.url}/metrics`)).text();
      return metrics.includes("\nrpmsg_bridge_captures 1\n") || undefined;
    });
  const echo = async (text: string): Promise<void> => {
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/echo");
    client.send(text);
    await client.next("message");
    await client.close();
  };
  await runs();
  const handOver = async (): Promise<void> => {
    await dynasty.handOver(first);
    await command.says("another bridge goes on");
    await runs();
  };
  return { dynasty, command, echo, handOver };
}

const GAP =
  /rpmsg-bridge: another bridge goes on in this one's place, as after a hand-over: messages of \d+ ms are not captured\n/;

describe.skipIf(unsupported)(titled("at a hand-over"), { timeout: 120_000 }, () => {
  test("capture goes on in the same file with a section of its own, and says what may be missing", async () => {
    const file = join(testDirectory(), "a.pcapng");
    const { command, echo, handOver } = await scene("capture", "-w", file);
    await echo("before");
    await handOver();
    await echo("after");
    await eventually(
      "it is written",
      () => readFileSync(file).toString().split("after").length > 2 || undefined,
    );
    const { code, stderr } = await command.kill("SIGINT");
    expect(stderr).toMatch(GAP);
    expect([code, stderr.replace(GAP, "")]).toEqual([
      0,
      "4 messages captured, 0 left out; 1 gap, of which nobody knows what went through\n",
    ]);
    expect(sectionsOf(file).map(shown)).toEqual([
      { texts: ["before", "before"], counted: [2, 0] },
      { texts: ["after", "after"], counted: [2, 0] },
    ]);
  });

  test("each of several files can be read by itself", async () => {
    const directory = testDirectory();
    const args = ["-w", join(directory, "a.pcapng"), "--file-size", "1", "--json"];
    const { command, echo, handOver } = await scene("capture", ...args);
    await echo("before");
    await handOver();
    await echo("after");
    await eventually("there are four", () => existsSync(join(directory, "a-00004.pcapng")) || undefined);
    const { code, stdout } = await command.kill("SIGTERM");
    expect([code, JSON.parse(stdout)]).toEqual([0, { messages: 4, dropped: 0, gaps: 1 }]);
    const files = readdirSync(directory).toSorted();
    const sections = files.map((name) => sectionsOf(join(directory, name)).map((each) => shown(each).texts));
    // The second one has the beginning of the successor's section at its end.
    expect(sections).toEqual([[["before"]], [["before"], []], [["after"]], [["after"]]]);
  });

  test("dump goes on, too", async () => {
    const { command, echo, handOver } = await scene("dump", "--count", "4");
    await echo("before");
    await handOver();
    await echo("after");
    const { code, stdout, stderr } = await command.finished;
    expect([code, stderr.replace(GAP, "")]).toEqual([0, ""]);
    expect(stdout.match(/before|after/g)).toEqual(["before", "before", "after", "after"]);
  });
});
