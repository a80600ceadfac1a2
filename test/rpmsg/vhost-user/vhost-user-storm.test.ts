import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { request } from "../../../rpmsg/vhost-user/messages.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { useSessions } from "../support/vhost-user-session.ts";

const open = useSessions();

test.each([{ eventIndex: false }, { eventIndex: true }])(
  "a storm of kicks with nothing behind them leaves others their turn, $eventIndex",
  async ({ eventIndex }) => {
    const storming = open({ guest: { eventIndex } });
    await storming.features(undefined, eventIndex ? 0x1_7000_0001n : 0x1_5000_0001n);
    const { kicks } = await storming.start();
    const quiet = open();
    const { received } = openEndpoint(quiet.device, 1030);
    await quiet.features();
    const rings = await quiet.start();
    let timers = 0;
    for (let round = 0; round < 50; round++) {
      for (let kick = 0; kick < 200; kick++) for (const fd of kicks) storming.kick(fd);
      const timer = new Promise((resolve) => setTimeout(resolve));
      quiet.guest.offer(0x400, 1030, String(round));
      quiet.kick(rings.kicks[1]);
      // Each turn begins with the storm.
      while (received.length <= round) {
        for (const fd of kicks) storming.kick(fd);
        await nextTurn();
      }
      await timer;
      timers++;
      quiet.guest.returned();
    }
    expect(texts(received)).toEqual(Array.from({ length: 50 }, (_, i) => String(i)));
    expect(timers).toBe(50);
    // The frontend itself is still heard.
    expect((await storming.ask(request.GET_QUEUE_NUM)).readBigUInt64LE()).toBe(2n);
    expect(storming.device.counters.brokenQueues).toBe(0);
  },
);
