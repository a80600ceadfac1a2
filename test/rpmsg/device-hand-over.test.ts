import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { DeviceEvents, DeviceSnapshot } from "../../rpmsg/device.ts";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import type { SendQueue } from "../../rpmsg/send-queue.ts";
import { Driver, nameServiceMessage, turns } from "./support/device-driver.ts";

const GUEST = 0x400;
const LOCAL = 1030;
const NAME_SERVICE = 53;

/** A device with one endpoint and one sender, whose tickets are numbers. */
class Side {
  readonly device: RpmsgDevice;
  readonly got: string[] = [];
  readonly heard: string[] = [];
  readonly queue: SendQueue<number>;

  constructor(events: DeviceEvents = {}) {
    this.device = new RpmsgDevice(events);
    const endpoint = this.device.createEndpoint((_src, bytes, offset, length) => {
      this.got.push(Buffer.from(bytes.subarray(offset, offset + length)).toString());
    }, LOCAL);
    this.queue = this.device.createSendQueue<number>(
      endpoint,
      { peer: GUEST },
      {
        onSent: (_length, ticket) => this.heard.push(`sent ${ticket}`),
        onUndelivered: (code, ticket) => this.heard.push(`${code} ${ticket}`),
        onUnconfirmed: (ticket) => this.heard.push(`unconfirmed ${ticket}`),
      },
      { limit: 100_000, timeout: 15_000 },
    );
  }

  send(ticket: number): string {
    const bytes = Buffer.from(`to ${ticket}`);
    return this.queue.send(undefined, bytes, 0, bytes.length, ticket);
  }

  /** Stands still; what there is to know crosses as another process would get it. */
  give(): {
    snapshot: DeviceSnapshot;
    waiting: ReturnType<SendQueue<number>["snapshot"]>;
    unread: unknown[];
  } {
    this.device.pause();
    const unread = this.device.unread().get(this.queue) ?? [];
    return structuredClone({ snapshot: this.device.snapshot(), waiting: this.queue.snapshot(), unread });
  }

  take(given: ReturnType<Side["give"]>): this {
    this.device.restore(given.snapshot);
    this.queue.restore(given.waiting);
    this.device.restoreUnread(this.queue, given.unread as []);
    return this;
  }
}

function handOver(from: Side, driver: Driver, prepare = (_side: Side): void => {}): Side {
  const given = from.give();
  const to = new Side();
  prepare(to);
  to.take(given);
  driver.handOver(to.device);
  return to;
}

describe("a device that is handed over", () => {
  test("stands still: it takes nothing, sends nothing and says nothing until it goes on", async () => {
    const states: string[] = [];
    const side = new Side({ onState: (state) => states.push(state) });
    const driver = new Driver(side.device).boot(2);
    await turns(2);
    side.device.pause();
    driver.send(GUEST, LOCAL, "from 1");
    expect(side.send(1)).toBe("queued");
    await turns(3);
    expect(side.got).toEqual([]);
    expect(driver.receiveAll()).toEqual([]);
    expect(side.device.state).toBe("attached");
    side.device.resume();
    await turns(3);
    expect(side.got).toEqual(["from 1"]);
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["to 1"]);
    expect(states).toEqual(["attached"]);
    expect(side.device.generation).toBe(1);
  });

  test("goes on in another one: the same generation, counters, peers and services, and no reset", async () => {
    const from = new Side();
    const driver = new Driver(from.device).boot(8);
    from.device.announce("told", 2000);
    from.device.announce("withdrawn", 2001);
    driver.send(7, NAME_SERVICE, nameServiceMessage("guest-service", 0x33));
    driver.send(GUEST, LOCAL, "from 1");
    await turns(2);
    expect(driver.receiveAll()).toHaveLength(2);
    const events: string[] = [];
    const to = new Side({
      onReset: (generation) => events.push(`reset ${generation}`),
      onState: (state) => events.push(state),
      onPeer: () => events.push("peer"),
    });
    // What it was told and is no more is withdrawn; what it knows is not told again.
    const announced = to.device.announce("told", 2000);
    const given = from.give();
    to.take(given);
    driver.handOver(to.device);
    driver.send(GUEST, LOCAL, "from 2");
    await turns(3);
    expect(announced.told).toBe(true);
    expect([...to.device.guestAnnouncements]).toEqual([{ name: "guest-service", address: 0x33 }]);
    expect(to.got).toEqual(["from 2"]);
    expect(to.device.counters).toEqual({
      ...from.device.counters,
      messagesFromGuest: 3,
      bytesFromGuest: 52,
      messagesToGuest: 3,
      bytesToGuest: 120,
    });
    expect(events).toEqual([]);
    const [destroyed, ...more] = driver.receiveAll();
    expect(more).toEqual([]);
    expect(destroyed?.payload).toEqual(nameServiceMessage("withdrawn", 2001, 1));
  });

  test("a name-service message that had no buffer is told by the next one, once", async () => {
    const from = new Side();
    const driver = new Driver(from.device).boot(0);
    from.device.announce("late", 2000);
    await turns(2);
    const to = handOver(from, driver, (side) => side.device.announce("late", 2000));
    driver.post(512);
    driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    await turns(2);
    expect(driver.receiveAll().map(({ payload }) => payload)).toEqual([nameServiceMessage("late", 2000)]);
    expect(to.device.idle).toBe(true);
  });

  test("dynamic addresses go on where they were, those just freed last", () => {
    const from = new Side();
    const first = from.device.createEndpoint(() => {});
    from.device.createEndpoint(() => {}).close();
    const to = new Side();
    to.device.createEndpoint(() => {}, first.address);
    to.take(from.give());
    expect(to.device.createEndpoint(() => {}).address).toBe(first.address + 2);
  });

  test("a first kick that comes meanwhile is not lost", async () => {
    const side = new Side();
    const driver = new Driver(side.device, { nameService: false });
    driver.post(512);
    driver.start();
    side.send(1);
    side.device.pause();
    driver.kick(RESPONSE_QUEUE);
    side.device.resume();
    await turns(2);
    expect(driver.receiveAll()).toHaveLength(1);
  });

  test("one that was suspended resumes in the other, or is reset, as its positions say", async () => {
    for (const [bases, generation] of [
      [undefined, 1],
      [[0, 0], 2],
    ] as const) {
      const from = new Side();
      const driver = new Driver(from.device).boot(4);
      driver.send(GUEST, LOCAL, "from 1");
      await turns(1);
      const stopped = from.device.stop() ?? [{ base: 0 }, { base: 0 }];
      from.send(1);
      const to = new Side().take(from.give());
      expect(to.device.state).toBe("suspended");
      driver.use(to.device);
      driver.start(bases ?? [stopped[0].base, stopped[1].base]);
      await turns(2);
      expect(to.device.generation).toBe(generation);
      expect(to.heard).toEqual(generation === 1 ? ["sent 1"] : ["guest-gone 1"]);
    }
  });

  test("what the guest has not read is known after it, when the guest is reset", async () => {
    const from = new Side();
    const driver = new Driver(from.device).boot(3);
    for (const ticket of [1, 2, 3, 4]) from.send(ticket);
    await turns(2);
    // The driver reads one and posts its buffer anew.
    driver.receive();
    driver.post(512);
    const to = handOver(from, driver);
    await turns(2);
    expect(to.heard).toEqual(["sent 4"]);
    to.device.reset();
    expect(to.heard.slice(1).toSorted()).toEqual(["unconfirmed 2", "unconfirmed 3", "unconfirmed 4"]);
  });

  test("a broken queue stays broken until the reset", async () => {
    const from = new Side();
    const driver = new Driver(from.device).boot(3);
    driver.request.publish();
    driver.window.u16[(driver.rings[REQUEST_QUEUE].available - driver.window.guestAddress) / 2 + 1] = 9999;
    driver.kick(REQUEST_QUEUE);
    expect(from.device.counters.brokenQueues).toBe(1);
    const to = handOver(from, driver);
    driver.kick(REQUEST_QUEUE);
    await turns(2);
    expect(to.device.counters.brokenQueues).toBe(1);
    expect(to.send(1)).toBe("sent");
  });

  test("whenever it happens, however often: every message both ways arrives once and in order", async () => {
    const step = fc.constantFrom("send", "offer", "kick", "read", "turn", "hand over", "pause and go on");
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.boolean(), async (steps, eventIndex) => {
        let side = new Side();
        const driver = new Driver(side.device, { eventIndex }).boot(4);
        const got: string[] = [];
        const read: string[] = [];
        let sent = 0;
        let offered = 0;
        const collect = (): void => {
          got.push(...side.got.splice(0));
          for (const { payload } of driver.receiveAll()) {
            read.push(payload.toString());
            driver.post(512);
          }
          driver.returned();
        };
        for (const each of steps) {
          if (each === "send") side.send(++sent);
          else if (each === "offer" && offered - got.length < 16)
            driver.offer(GUEST, LOCAL, `from ${++offered}`);
          else if (each === "kick") driver.kick(REQUEST_QUEUE);
          else if (each === "read") collect();
          else if (each === "turn") await turns(1);
          else if (each === "hand over") {
            got.push(...side.got.splice(0));
            side = handOver(side, driver);
          } else {
            side.device.pause();
            await turns(1);
            side.device.resume();
          }
          if (each === "offer") {
            // Room in the ring is taken back before the next one.
            await turns(1);
            collect();
            driver.kick(REQUEST_QUEUE);
            await turns(1);
            collect();
          }
        }
        for (let i = 0; i < 40; i++) {
          driver.kick(REQUEST_QUEUE);
          driver.kick(RESPONSE_QUEUE);
          await turns(1);
          collect();
        }
        expect(got).toEqual(Array.from({ length: offered }, (_, i) => `from ${i + 1}`));
        expect(read).toEqual(Array.from({ length: sent }, (_, i) => `to ${i + 1}`));
      }),
      { numRuns: 60 },
    );
  });
});
