import { describe, expect, test } from "vitest";
import { descriptorCount, titled, unsupported } from "../posix/support.ts";
import { message } from "../support/device-driver.ts";
import { openEndpoint, openSender, texts } from "../support/device-endpoints.ts";
import { RelayedGuest } from "../support/relayed-guest.ts";

describe.skipIf(unsupported !== undefined).each([{ eventIndex: false }, { eventIndex: true }])(
  titled("a relay between a guest and the bridge, $eventIndex"),
  (options) => {
    test("posts a buffer for each of the guest's, of the same length", async () => {
      const { device, guest } = await RelayedGuest.boot([512, 100, 66_000, 16], options);
      const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
      const mtus: number[] = [];
      for (let i = 0; i < 4; i++) {
        expect(sender.send(i < 3 ? `${i}` : "")).toBe("sent");
        mtus.push(device.mtu);
      }
      expect(mtus).toEqual([496, 84, 65_535, 0]);
      expect(sender.send("none left")).toBe("queued");
      expect(guest.receiveAll()).toEqual([]);
    });

    test("gives the guest the bridge's messages as they are, and says how long they are", async () => {
      const relayed = await RelayedGuest.boot([512, 512, 512], options);
      const { device, guest } = relayed;
      // In several pieces, and at an odd address.
      guest.postAt(
        { address: guest.allocate(8, 1), length: 7 },
        { address: guest.allocate(8, 1), length: 2 },
        { address: guest.allocate(256, 3), length: 200 },
      );
      await relayed.kick(0);
      const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
      const payloads = [Buffer.alloc(0), Buffer.from("x"), Buffer.alloc(496, 0xa5), Buffer.alloc(193, 7)];
      for (const payload of payloads) expect(sender.send(payload)).toBe("sent");
      await relayed.settle();
      const received = guest.receiveAll();
      expect(received.map(({ payload }) => payload)).toEqual(payloads);
      for (const [i, each] of received.entries()) {
        const { length } = payloads[i] as Buffer;
        expect(each).toMatchObject({ src: 1030, dst: 0x400, reserved: 0, flags: 0, used: 16 + length });
        expect(each.buffer.subarray(16 + length).every((byte) => byte === 0xee)).toBe(true);
      }
      expect(relayed.calls[0]).toBeGreaterThan(0);
    });

    test("gives the bridge the guest's messages, in pieces or not, and those that are none", async () => {
      const relayed = await RelayedGuest.boot([512], options);
      const { device, guest } = relayed;
      const { received } = openEndpoint(device, 1030);
      guest.offer(0x400, 1030, "one");
      guest.offerBytes(message(0x401, 1030, "in pieces"), [3, 1, 12, 2], 1);
      guest.offerBytes(Buffer.alloc(8));
      guest.offerBytes(message(0x400, 1030, "short", { len: 6 }));
      guest.offerBytes(Buffer.concat([message(0x402, 1030, "padded"), Buffer.alloc(400, 1)]));
      guest.offer(0x400, 77, "to nobody");
      await relayed.kick(1);
      expect(received.map(({ src, bytes }) => [src, bytes.toString()])).toEqual([
        [0x400, "one"],
        [0x401, "in pieces"],
        [0x402, "padded"],
      ]);
      expect(device.counters).toMatchObject({ messagesFromGuest: 3, malformed: 2, unknownAddress: 1 });
      expect(guest.returned()).toEqual([0, 0, 0, 0, 0, 0]);
    });

    test("leaves the guest's messages in their ring while the bridge takes none", async () => {
      const relayed = await RelayedGuest.boot([512], options);
      const { device, guest } = relayed;
      const { received } = openEndpoint(device, 1030);
      device.hold();
      let sent = 0;
      const fill = async (): Promise<void> => {
        while (guest.request.free > 0) guest.offer(0x400, 1030, `${sent++}`);
        await relayed.kick(1);
      };
      await fill();
      expect(guest.returned()).toHaveLength(16);
      await fill();
      await relayed.settle();
      expect(guest.returned()).toEqual([]);
      expect(received).toEqual([]);
      device.release();
      await relayed.settle();
      expect(texts(received)).toEqual(Array.from({ length: sent }, (_, i) => `${i}`));
      expect(guest.returned()).toHaveLength(16);
      await fill();
      expect(received).toHaveLength(sent);
    });

    test("whose guest stops hands over all that it has sent, whoever holds it", async () => {
      const relayed = await RelayedGuest.boot([512], options);
      const { device, guest } = relayed;
      const { received } = openEndpoint(device, 1030);
      device.hold();
      for (let round = 0; round < 2; round++) {
        for (let i = 0; i < 16; i++) guest.offer(0x400, 1030, `${16 * round + i}`);
        await relayed.kick(1);
        if (round === 0) expect(guest.returned()).toHaveLength(16);
      }
      expect(await relayed.frontend.stop()).toEqual([0, 32]);
      expect(device.state).toBe("suspended");
      expect(texts(received)).toEqual(Array.from({ length: 32 }, (_, i) => `${i}`));
    });

    test("whose guest crashes right after it has sent hands that over too", async () => {
      const before = descriptorCount();
      const relayed = await RelayedGuest.boot([512], options);
      const { device, guest } = relayed;
      const { received } = openEndpoint(device, 1030);
      guest.offer(0x400, 1030, "the last words");
      relayed.frontend.kick(1);
      relayed.frontend.close();
      await relayed.closed;
      expect(texts(received)).toEqual(["the last words"]);
      expect(device).toMatchObject({ state: "detached", generation: 2 });
      // The poller, and the guest's memory.
      expect(descriptorCount() - before).toBe(2);
    });

    test("pauses and goes on with its guest: nothing is lost, nothing comes twice", async () => {
      const relayed = await RelayedGuest.boot([512, 512], options);
      const { device, guest, frontend } = relayed;
      const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
      const arrived = () => guest.receiveAll().map(({ payload }) => payload.toString());
      sender.send("1");
      await relayed.settle();
      // The bridge says "sent" when the relay is stopping already.
      expect(sender.send("2")).toBe("sent");
      const bases = await frontend.stop();
      expect(bases).toEqual([1, 0]);
      expect(device).toMatchObject({ state: "suspended", generation: 1 });
      for (const text of ["3", "4"]) expect(sender.send(text)).toBe("queued");
      await relayed.settle();
      expect(arrived()).toEqual(["1"]);
      for (let i = 0; i < 2; i++) guest.post(512);
      await frontend.start(bases);
      expect(device).toMatchObject({ state: "attached", generation: 1 });
      await relayed.kick(0);
      expect(arrived()).toEqual(["2", "3", "4"]);
      guest.offer(0x400, 1030, "and back");
      await relayed.kick(1);
      expect(device.counters.messagesFromGuest).toBe(1);
    });

    test("knows which messages its guest had not read when a new driver came", async () => {
      const relayed = await RelayedGuest.boot([512, 512, 512], options);
      const { device, guest, frontend } = relayed;
      const lost: string[] = [];
      const { endpoint } = openEndpoint(device, 1030);
      const queue = device.createSendQueue<string>(
        endpoint,
        { peer: 0x400 },
        { onUnconfirmed: (ticket) => lost.push(ticket as string) },
        { limit: 1000, timeout: 1000 },
      );
      for (const text of ["read", "unread", "unread too"]) {
        const bytes = Buffer.from(text);
        expect(queue.send(undefined, bytes, 0, bytes.length, text)).toBe("sent");
      }
      await relayed.settle();
      // It reads the first one and posts its buffer again, without a kick.
      expect(guest.receive()?.payload.toString()).toBe("read");
      guest.post(512);
      await frontend.stop();
      const next = relayed.renew();
      next.post(512);
      await frontend.start();
      expect(lost).toEqual(["unread", "unread too"]);
      expect(device).toMatchObject({ state: "attached", generation: 2 });
      // The new driver has not kicked: it does not listen.
      const bytes = Buffer.from("new");
      expect(queue.send(undefined, bytes, 0, bytes.length, "new")).toBe("queued");
      await relayed.settle();
      expect(next.receiveAll()).toEqual([]);
      await relayed.kick(0);
      expect(next.receiveAll().map(({ payload }) => payload.toString())).toEqual(["new"]);
    });

    test("passes a reset on, and starts again", async () => {
      const relayed = await RelayedGuest.boot([512], options);
      const { device, frontend } = relayed;
      await frontend.reset();
      expect(device).toMatchObject({ state: "detached", generation: 2 });
      relayed.renew().post(512);
      await frontend.start();
      expect(device).toMatchObject({ state: "attached", generation: 2 });
    });
  },
);

describe.skipIf(unsupported !== undefined)(titled("a relay of more than it does in one turn"), () => {
  /** The longest message that there is, and the bytes that wait in a relay at most, one way. */
  const LONGEST = 65_535;
  const OUT = 2 ** 24;

  /** Waits until this is so. */
  async function until(relayed: RelayedGuest, condition: () => boolean): Promise<void> {
    while (!condition()) await relayed.settle();
  }

  /** Offers a message of the longest payload; all lie over one another, but for their headers. */
  function offerLongest({ guest }: RelayedGuest, src: number, payload: number): void {
    const header = guest.allocate(16, 0);
    guest.bytes(header, 16).set(message(src, 1030, "", { len: LONGEST }));
    const pieces = [
      { address: header, length: 16, writable: false },
      { address: payload, length: LONGEST, writable: false },
    ];
    if (guest.request.addChain(pieces) === -1) throw new RangeError("no descriptor is free");
  }

  test("passes 2,000 messages on, either way, in their order", async () => {
    const relayed = await RelayedGuest.boot(Array(2048).fill(32), { size: 2048 });
    const { device, guest } = relayed;
    const { endpoint, received } = openEndpoint(device, 1030);
    const numbers = Array.from({ length: 2000 }, (_, i) => `${i}`);
    for (const text of numbers) guest.offer(0x400, 1030, text);
    relayed.frontend.kick(1);
    await until(relayed, () => received.length === numbers.length);
    expect(texts(received)).toEqual(numbers);
    await until(relayed, () => device.mtu === 16);
    const sender = openSender(device, endpoint, { peer: 0x400 });
    for (const text of numbers) sender.send(text);
    const arrived: string[] = [];
    await until(relayed, () => {
      arrived.push(...guest.receiveAll().map(({ payload }) => payload.toString()));
      return arrived.length === numbers.length;
    });
    expect(arrived).toEqual(numbers);
    expect(relayed.broken).toEqual([]);
  });

  test("fills buffers of more bytes than it has out at a time", async () => {
    const relayed = await RelayedGuest.boot([], { size: 512 });
    const { device, guest } = relayed;
    const address = guest.allocate(70_000, 0);
    for (let i = 0; i < 512; i++) guest.postAt({ address, length: 70_000 });
    await relayed.kick(0);
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint, { peer: 0x400, limit: 1e6 });
    const said = Array.from({ length: 512 }, (_, i) => sender.send(Buffer.alloc(i)));
    // For the others the relay has no bytes yet.
    expect(said.filter((each) => each === "sent").length).toBeLessThanOrEqual(OUT / LONGEST + 2);
    const used: number[] = [];
    await until(relayed, () => {
      used.push(...guest.receiveAll().map((each) => each.used));
      return used.length === 512;
    });
    expect(used).toEqual(Array.from({ length: 512 }, (_, i) => 16 + i));
  });

  test("leaves its guest what it has no room for, also when that stops, and takes it afterwards", async () => {
    const relayed = await RelayedGuest.boot([512], { size: 2048 });
    const { device, guest, frontend } = relayed;
    const sources: number[] = [];
    device.createEndpoint((src, _bytes, _offset, length) => {
      expect(length).toBe(LONGEST);
      sources.push(src);
    }, 1030);
    const payload = guest.allocate(LONGEST, 0);
    device.hold();
    for (let i = 0; i < 700; i++) offerLongest(relayed, 2000 + i, payload);
    guest.request.publish();
    await relayed.kick(1);
    const taken = guest.returned().length;
    expect(taken).toBeGreaterThan(200);
    expect(taken).toBeLessThanOrEqual(OUT / LONGEST + 1);
    const bases = await frontend.stop();
    // What is kept for a stop is as much again.
    expect(bases[1]).toBeGreaterThan(taken);
    expect(bases[1]).toBeLessThanOrEqual(2 * (OUT / LONGEST + 1));
    expect(sources).toHaveLength(bases[1] as number);
    device.release();
    await frontend.start(bases);
    await until(relayed, () => sources.length === 700);
    expect(sources).toEqual(Array.from({ length: 700 }, (_, i) => 2000 + i));
  });

  test("passes a chain without a byte to read on, for the bridge to count", async () => {
    const relayed = await RelayedGuest.boot([512]);
    const { device, guest } = relayed;
    guest.request.addChain([{ address: guest.allocate(64, 0), length: 64, writable: true }]);
    guest.request.publish();
    await relayed.kick(1);
    expect(device.counters).toMatchObject({ malformed: 1, messagesFromGuest: 0 });
    expect(guest.returned()).toEqual([0]);
  });
});

describe.skipIf(unsupported !== undefined)(titled("a guest that breaks the rules"), () => {
  /** Bytes of the table of descriptors, of queue 0 or 1. */
  const descriptor = ({ guest }: RelayedGuest, queue: 0 | 1, head: number) =>
    guest.bytes(guest.rings[queue].descriptors + 16 * head, 16);

  test("by a buffer that is too short for a header, loses its response queue", async () => {
    const relayed = await RelayedGuest.boot([512, 15]);
    expect(relayed.broken).toEqual(["0 buffer-too-small"]);
    const { received } = openEndpoint(relayed.device, 1030);
    relayed.guest.offer(0x400, 1030, "the other queue");
    await relayed.kick(1);
    expect(texts(received)).toEqual(["the other queue"]);
  });

  test("by making a posted buffer shorter, gets nothing written behind it", async () => {
    const relayed = await RelayedGuest.boot([512, 512]);
    const { device, guest } = relayed;
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
    descriptor(relayed, 0, 0).writeUInt32LE(20, 8);
    expect(sender.send(Buffer.alloc(100, 1))).toBe("sent");
    await relayed.settle();
    expect(relayed.broken).toEqual(["0 buffer-too-small"]);
    expect(guest.receiveAll()).toEqual([]);
    const address = Number(descriptor(relayed, 0, 0).readBigUInt64LE());
    expect(guest.bytes(address, 512).every((byte) => byte === 0xee)).toBe(true);
  });

  test("by moving a posted buffer out of its memory", async () => {
    const relayed = await RelayedGuest.boot([512, 512]);
    const sender = openSender(relayed.device, openEndpoint(relayed.device, 1030).endpoint, { peer: 0x400 });
    descriptor(relayed, 0, 0).writeBigUInt64LE(0x10n);
    expect(sender.send("x")).toBe("sent");
    await relayed.settle();
    expect(relayed.broken).toEqual(["0 descriptor-range"]);
  });

  test("by posting a descriptor twice, or taking a posted one back", async () => {
    const twice = await RelayedGuest.boot([512, 512]);
    const ring = twice.guest.bytes(twice.guest.rings[0].available, 4 + 2 * 16);
    ring.writeUInt16LE(0, 4 + 2 * 2);
    ring.writeUInt16LE(3, 2);
    await twice.kick(0);
    expect(twice.broken).toEqual(["0 descriptor-index"]);

    const back = await RelayedGuest.boot([512, 512]);
    const sender = openSender(back.device, openEndpoint(back.device, 1030).endpoint, { peer: 0x400 });
    back.guest.bytes(back.guest.rings[0].available, 4).writeUInt16LE(0, 2);
    expect(sender.send("x")).toBe("sent");
    await back.settle();
    expect(back.broken).toEqual(["0 avail-index-jump"]);
  });

  test("in its request queue, loses that until a reset", async () => {
    const relayed = await RelayedGuest.boot([512]);
    const { device, guest, frontend } = relayed;
    guest.bytes(guest.rings[1].available, 4).writeUInt16LE(17, 2);
    await relayed.kick(1);
    expect(relayed.broken).toEqual(["1 avail-index-jump"]);
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
    expect(sender.send("the other queue")).toBe("sent");
    await relayed.settle();
    expect(guest.receive()?.payload.toString()).toBe("the other queue");

    await frontend.reset();
    const { received } = openEndpoint(device, 1031);
    const next = relayed.renew();
    await frontend.start();
    next.offer(0x400, 1031, "again");
    await relayed.kick(1);
    expect(texts(received)).toEqual(["again"]);
  });
});
