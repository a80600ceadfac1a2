import { describe, expect, test } from "vitest";
import type { ProfileName } from "../../guest/profiles.ts";
import type { ServiceContext } from "../../guest/service.ts";
import { echo } from "../../guest/services/echo.ts";
import { encodeNameService } from "../../rpmsg/index.ts";
import { bootInProcess, probe, RawHost, turns } from "./support.ts";

interface Expected {
  profile: ProfileName;
  queueSize: number;
  firstAddress: number;
  /** Buffers of six messages, each given back at once. */
  buffers: number[];
  reserved: number[];
  tooLong: "refused" | 496;
  /** Endpoints of the name that the host announced, after the announcement, and where its message comes from. */
  announced: { endpoints: number; speaksFrom: "old" | "new" };
  /** Whether the buffer of a message with a bad length is posted again. */
  badLength: "lost" | "posted";
}

// Each row is a real difference: virtio_rpmsg_bus.c, open-amp and rpmsg-lite in the driver's role.
const table: Expected[] = [
  {
    profile: "linux",
    queueSize: 256,
    firstAddress: 1024,
    buffers: [0, 1, 2, 3, 4, 5],
    reserved: [0, 0, 0, 0, 0, 0],
    tooLong: "refused",
    announced: { endpoints: 2, speaksFrom: "new" },
    badLength: "lost",
  },
  {
    profile: "openamp",
    queueSize: 16,
    firstAddress: 1024,
    buffers: [0, 0, 0, 0, 0, 0],
    reserved: [0, 0, 0, 0, 0, 0],
    tooLong: 496,
    announced: { endpoints: 1, speaksFrom: "old" },
    badLength: "posted",
  },
  {
    profile: "rpmsg-lite",
    queueSize: 8,
    firstAddress: 1,
    buffers: [0, 0, 0, 0, 0, 0],
    reserved: [0, 0, 0, 0, 0, 0],
    tooLong: "refused",
    announced: { endpoints: 2, speaksFrom: "new" },
    badLength: "posted",
  },
];

async function boot(profile: ProfileName) {
  const service = probe();
  const host = new RawHost(profile, { echo: service.factory });
  const [context] = service.contexts as [ServiceContext];
  await turns();
  const announcement = host.take();
  return { host, context, service, announcement };
}

describe.each(table)("profile $profile", (expected) => {
  const { profile } = expected;

  test("addresses, sizes, and the bytes of its announcement", async () => {
    const { host, context, announcement } = await boot(profile);
    expect(host.guest.profile.queueSize).toBe(expected.queueSize);
    expect(host.guest.profile.bufferCount).toBe(expected.queueSize);
    expect(host.postedSince(0)).toBe(expected.queueSize);
    expect(context.address).toBe(expected.firstAddress);
    expect(context.mtu).toBe(496);
    expect(announcement).toMatchObject({ src: expected.firstAddress, dst: 53, len: 40 });
    expect(announcement?.payload).toEqual(
      Buffer.from(encodeNameService({ name: "echo", address: expected.firstAddress, created: true })),
    );
  });

  test("the order in which it uses its buffers", async () => {
    const service = probe();
    const host = new RawHost(profile, {});
    host.guest.announce("x", service.factory);
    const [context] = service.contexts as [ServiceContext];
    const messages = [];
    for (let i = 0; i < 6; i++) {
      if (i > 0) expect(context.send(9, Buffer.from([i]))).toBe(true);
      await turns(2);
      messages.push(host.take());
    }
    expect(messages.map((message) => message?.buffer)).toEqual(expected.buffers);
    expect(messages.map((message) => message?.reserved)).toEqual(expected.reserved);
  });

  test("`reserved` of messages in several buffers", async () => {
    const { host, context } = await boot(profile);
    for (let i = 0; i < 4; i++) context.send(9, Buffer.from([i]));
    await turns();
    const messages = host.takeAll();
    expect(new Set(messages.map(({ buffer }) => buffer)).size).toBe(4);
    expect(messages.map(({ reserved }) => reserved)).toEqual(
      profile === "linux" ? [0, 0, 0, 0] : messages.map(({ buffer }) => buffer),
    );
  });

  test("a message longer than a buffer", async () => {
    const { host, context } = await boot(profile);
    const long = Buffer.alloc(497, 7);
    if (expected.tooLong === "refused") {
      expect(() => context.send(9, long)).toThrow(RangeError);
      await turns();
      expect(host.take()).toBeUndefined();
    } else {
      expect(context.send(9, long)).toBe(true);
      await turns();
      expect(host.take()).toMatchObject({ len: expected.tooLong });
    }
    expect(context.send(9, long.subarray(1))).toBe(true);
    await turns();
    expect(host.take()?.len).toBe(496);
  });

  test("a message with a bad length costs it a buffer, or not, and it goes on with the next", async () => {
    const { host, context, service } = await boot(profile);
    host.send(7, context.address, "four", { len: 400 });
    expect(host.postedSince(expected.queueSize)).toBe(expected.badLength === "lost" ? 0 : 1);
    expect(host.send(7, context.address, "next")).toBe(true);
    expect(service.got).toEqual([`7>${context.address} next`]);
  });

  test("messages to nobody are dropped and their buffers posted again", async () => {
    const { host, service } = await boot(profile);
    host.send(7, 999, "lost");
    expect(host.postedSince(expected.queueSize)).toBe(1);
    expect(service.got).toEqual([]);
  });

  test("what an announcement of the host does with an endpoint of that name", async () => {
    const { host, context, service } = await boot(profile);
    host.send(53, 53, encodeNameService({ name: "echo", address: 0x500, created: true }));
    await turns();
    expect(service.contexts).toHaveLength(expected.announced.endpoints);
    const from = service.contexts[expected.announced.endpoints - 1]?.address;
    expect(from === context.address ? "old" : "new").toBe(expected.announced.speaksFrom);
    expect(host.takeAll()).toMatchObject([{ src: from, dst: 0x500, len: 0 }]);
    // A second time it is there already.
    host.send(53, 53, encodeNameService({ name: "echo", address: 0x500, created: true }));
    await turns();
    expect(service.contexts).toHaveLength(expected.announced.endpoints);
    expect(host.take()).toBeUndefined();
  });

  test("a withdrawal of the host takes its channel away and leaves the guest's own", async () => {
    const { host, context, service } = await boot(profile);
    for (const created of [true, false])
      host.send(53, 53, encodeNameService({ name: "echo", address: 0x500, created }));
    await turns();
    const other = service.contexts[1]?.address;
    if (other !== undefined) host.send(7, other, "gone");
    host.send(7, context.address, "here");
    expect(service.got).toEqual([`7>${context.address} here`]);
  });

  test("without a transmit buffer it takes no more messages, and goes on when one is back", async () => {
    const host = new RawHost(profile, { echo });
    const count = expected.queueSize + 3;
    await turns();
    expect(host.take()?.dst).toBe(53);
    for (let i = 0; i < count; i++) {
      host.send(7, expected.firstAddress, `${i}`);
      await turns(1);
    }
    // The one that found no buffer keeps its own, and those behind it wait.
    expect(host.postedSince(expected.queueSize)).toBe(expected.queueSize);
    const got: (string | undefined)[] = [];
    for (let i = 0; i < count; i++) {
      got.push(host.take()?.payload.toString());
      await turns(2);
    }
    expect(got).toEqual(Array.from({ length: count }, (_, i) => `${i}`));
    expect(host.postedSince(expected.queueSize)).toBe(count);
  });

  test("a channel that the host announced is bound, answered and learned", async () => {
    const { host, link } = await bootInProcess(profile);
    const client = host.open({ address: 0x500 });
    host.device.announce("greeter", 0x500);
    client.send("hello");
    await turns();
    expect(client.texts).toEqual(["", "hello"]);
    const [first, second] = client.got;
    expect(first?.src).toBe(second?.src);
    expect([...host.device.guestAnnouncements]).toHaveLength(5);
    link.close();
  });

  test("more announcements than it has addresses do not end the process", async () => {
    const { host, link } = await bootInProcess(profile);
    for (let i = 0; i < 200; i++) host.device.announce(`service ${i}`, 0x1000 + i);
    const client = host.open({ peer: host.addressOf("echo") });
    await turns(200);
    client.send("still there");
    await turns();
    expect(client.texts).toEqual(["still there"]);
    link.close();
  });
});
