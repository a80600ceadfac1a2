import { expect, test } from "vitest";
import { vhostBridge } from "./vhost-guest.ts";

test("a guest that is looked for answers each message, in bursts and one by one, and after it was quiet", async () => {
  const running = await vhostBridge({}, { poll: "adaptive" });
  const { vm } = await running.attach();
  await running.endpoint("echo");
  const client = await running.connect("/ws/v1/vm/echo");
  let sent = 0;
  for (const burst of [...Array(300).fill(1), 64, 1, 1, 200, 2, 1]) {
    // The guest's next message comes after the bridge has stopped looking, at times.
    if (sent % 50 === 0) {
      await vm.pause();
      await running.guest("vm");
      await vm.resume();
    }
    const texts = Array.from({ length: burst as number }, () => `${sent++}`);
    for (const text of texts) client.send(text);
    for (const text of texts) expect(await client.text()).toBe(text);
  }
});
