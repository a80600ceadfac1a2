import { setImmediate as nextTurn } from "node:timers/promises";
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { BusyPoll } from "../../rpmsg/busy-poll.ts";
import { REQUEST_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, message, turns } from "./support/device-driver.ts";

/** Microseconds. */
let now = 0;
const clock = () => now / 1000;

beforeEach(() => {
  now = 1_000_000;
});

describe("how long is looked", () => {
  let looks: number;
  let polled: boolean;
  let running: boolean;
  let poll: BusyPoll;

  beforeEach(() => {
    looks = 0;
    polled = false;
    running = true;
    const queue = {
      setPolled(value: boolean): void {
        expect(value).not.toBe(polled);
        polled = value;
      },
      look(): boolean {
        looks++;
        return running;
      },
    };
    poll = new BusyPoll(queue, clock);
  });

  let active: number;

  /** Something goes through; @returns how many microseconds there is looking after it. */
  async function lookout(): Promise<number> {
    active = now;
    poll.active();
    while (polled) {
      const before = looks;
      now += 5;
      await nextTurn();
      expect(looks).toBe(before + 1);
    }
    // In the unit of its steps: a clock of fractions is not exact.
    return Math.floor((now - active) / 25) * 25;
  }

  /** A kick so many microseconds after something went through. */
  function kick(after: number): void {
    now = active + after;
    poll.kicked();
  }

  test("not at all before a kick came that would have been seen so", async () => {
    expect(await lookout()).toBe(0);
    kick(210);
    expect(await lookout()).toBe(0);
    kick(190);
    expect(await lookout()).toBe(25);
  });

  test("longer with each such kick, and shorter with each that comes later than can be waited for", async () => {
    await lookout();
    const seen: number[] = [];
    for (const after of [100, 100, 100, 150, 190, 300, 1000, 5000, 9000, 9000]) {
      kick(after);
      seen.push(await lookout());
    }
    expect(seen).toEqual([25, 50, 100, 200, 200, 100, 50, 25, 0, 0]);
  });

  test("as long as messages come, and kicks from before count for nothing", async () => {
    await lookout();
    kick(100);
    poll.active();
    for (let i = 0; i < 10; i++) {
      now += 20;
      await nextTurn();
      poll.active();
      poll.kicked();
    }
    expect(polled).toBe(true);
    expect(await lookout()).toBe(25);
  });

  test("no longer where the queue does not run", async () => {
    await lookout();
    kick(100);
    poll.active();
    running = false;
    await nextTurn();
    expect(polled).toBe(false);
    expect(looks).toBe(1);
  });
});

/** Puts a message in queue 1. @returns whether the driver is to kick */
function offer(driver: Driver, text: string): boolean {
  const bytes = message(0x400, 1030, text);
  const address = driver.allocate(bytes.length);
  driver.bytes(address, bytes.length).set(bytes);
  expect(driver.request.addChain([{ address, length: bytes.length, writable: false }])).not.toBe(-1);
  return driver.request.publish();
}

describe.each([{ eventIndex: false }, { eventIndex: true }])(
  "a device, event index $eventIndex",
  ({ eventIndex }) => {
    function start(size: number): { device: RpmsgDevice; driver: Driver; taken: string[] } {
      const device = new RpmsgDevice();
      device.pollAdaptively(clock);
      const taken: string[] = [];
      device.createEndpoint((_src, bytes, offset, length) => {
        taken.push(Buffer.from(bytes.subarray(offset, offset + length)).toString());
      }, 1030);
      const driver = new Driver(device, { size, eventIndex }).boot(0);
      return { device, driver, taken };
    }

    test("takes what comes soon without a kick, and wants kicks again when nothing comes", async () => {
      const { driver, taken } = start(16);
      await turns(2);
      for (const text of ["one", "two"]) {
        expect(offer(driver, text)).toBe(true);
        driver.kick(REQUEST_QUEUE);
      }
      expect(taken).toEqual(["one", "two"]);
      // The event index of before stands for one more kick.
      expect(offer(driver, "three")).toBe(eventIndex);
      await nextTurn();
      expect(offer(driver, "four")).toBe(false);
      await nextTurn();
      expect(taken).toEqual(["one", "two", "three", "four"]);
      now += 1000;
      await turns(2);
      driver.returned();
      expect(offer(driver, "five")).toBe(true);
      await turns(2);
      expect(taken).toHaveLength(4);
      driver.kick(REQUEST_QUEUE);
      expect(taken).toHaveLength(5);
    });

    test("what is sent to the guest is followed by a look-out, too", async () => {
      const { device, driver, taken } = start(16);
      for (let i = 0; i < 3; i++) driver.post(512);
      const sender = device.createSendQueue(
        device.createEndpoint(() => {}, 1031),
        { peer: 0x400 },
        {},
        { limit: 1000, timeout: 1000 },
      );
      for (const text of ["one", "two"]) {
        sender.send(undefined, Buffer.from("ask"), 0, 3);
        await nextTurn();
        if (offer(driver, text)) driver.kick(REQUEST_QUEUE);
      }
      await nextTurn();
      expect(taken).toEqual(["one", "two"]);
      sender.send(undefined, Buffer.from("ask"), 0, 3);
      await nextTurn();
      offer(driver, "three");
      await nextTurn();
      expect(taken).toEqual(["one", "two", "three"]);
    });

    test("no message is left in the ring, whenever it comes: a driver that kicks when it is told to", async () => {
      const step = fc.record({
        messages: fc.integer({ min: 0, max: 3 }),
        wait: fc.constantFrom(0, 10, 100, 190, 300, 5000),
        turns: fc.integer({ min: 0, max: 3 }),
        pause: fc.boolean(),
      });
      const property = fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { device, driver, taken } = start(128);
        let sent = 0;
        for (const each of steps) {
          let kick = false;
          for (let i = 0; i < each.messages; i++) kick = offer(driver, `${sent++}`) || kick;
          if (kick) driver.kick(REQUEST_QUEUE);
          now += each.wait;
          if (each.pause) {
            device.pause();
            await turns(each.turns);
            device.resume();
          }
          await turns(each.turns);
        }
        // Longer than it ever looks: what is not taken then waits for a kick that the driver was not told to give.
        now += 1000;
        await turns(3);
        expect(taken).toEqual(Array.from({ length: sent }, (_, i) => `${i}`));
      });
      await fc.assert(property, { numRuns: 200 });
    });
  },
);
