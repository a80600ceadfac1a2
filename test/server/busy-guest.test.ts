import { join } from "node:path";
import { expect, test } from "vitest";
import { Command } from "./cli-support.ts";
import { eventually, testBridge, testDirectory } from "./support.ts";

/** Answers that others get while the busy guest goes on. */
const ROUNDS = 20;

test("a guest in a process of its own that keeps its ring full: other guests and /healthz keep answering", async () => {
  const path = join(testDirectory(), "busy.sock");
  const running = await testBridge({
    guests: { busy: { kind: "vhost-user", path }, quiet: { kind: "emulated" } },
  });
  Command.start(["guest", "--socket", path]);
  await eventually("the busy guest's source", async () =>
    (await running.endpoints()).find(({ name, guest }) => name === "source" && guest === "busy"),
  );
  const flooded = await running.connect("/ws/v1/busy/source?slow=drop-oldest");
  let count = 0;
  flooded.socket.removeAllListeners("message");
  flooded.socket.on("message", () => count++);
  // As fast as buffers come back, from a process that does nothing else.
  for (let burst = 0; burst < 8; burst++) flooded.send("9999999 496");
  await eventually("the flood", () => (count > 1000 ? true : undefined));
  const echo = await running.connect("/ws/v1/quiet/echo");
  for (let round = 0; round < ROUNDS; round++) {
    const before = count;
    expect((await fetch(`${running.url}/healthz`)).status).toBe(200);
    echo.send(`round ${round}`);
    expect((await echo.next()).toString()).toContain(`round ${round}`);
    // The flood has not ended meanwhile.
    await eventually("more of the flood", () => (count > before ? true : undefined));
  }
  expect(flooded.socket.readyState).toBe(flooded.socket.OPEN);
});
