import { describe, expect, test } from "vitest";
import { RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, turns, UNTOUCHED } from "./support/device-driver.ts";
import { openEndpoint, openSender } from "./support/device-endpoints.ts";

function boot(...buffers: number[][]) {
  const device = new RpmsgDevice();
  const { endpoint } = openEndpoint(device, 0x8000_0406);
  const sender = openSender(device, endpoint, { peer: 0x400 });
  const driver = new Driver(device, { size: 64 });
  for (const pieces of buffers) driver.post(...pieces);
  driver.boot(0);
  return { device, driver, sender };
}

function pattern(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) + 1) & 0xff));
}

test("the header is written as the wire has it: reserved and flags are 0", async () => {
  const { driver, sender } = boot([24]);
  expect(sender.send("ab")).toBe("sent");
  await turns();
  expect([...(driver.receive()?.buffer ?? [])]).toEqual([
    0x06,
    0x04,
    0x00,
    0x80, // src 0x80000406
    0x00,
    0x04,
    0x00,
    0x00, // dst 0x400
    0x00,
    0x00,
    0x00,
    0x00, // reserved
    0x02,
    0x00, // len
    0x00,
    0x00, // flags
    0x61,
    0x62, // payload
    UNTOUCHED,
    UNTOUCHED,
    UNTOUCHED,
    UNTOUCHED,
    UNTOUCHED,
    UNTOUCHED, // not ours to write
  ]);
});

test.each([0, 1, 63, 64, 65, 495, 496])(
  "used.len is 16 + %i exactly, and nothing more is written",
  async (length) => {
    const { driver, sender, device } = boot([512]);
    expect(sender.send(pattern(length))).toBe("sent");
    await turns();
    const message = driver.receive();
    expect(message).toMatchObject({ src: 0x8000_0406, dst: 0x400, reserved: 0, flags: 0, len: length });
    expect(message?.used).toBe(16 + length);
    expect(message?.payload.equals(pattern(length))).toBe(true);
    expect(message?.buffer.subarray(16 + length).every((byte) => byte === UNTOUCHED)).toBe(true);
    expect(device.counters).toMatchObject({ messagesToGuest: 1, bytesToGuest: length });
  },
);

describe("the MTU is that of the posted buffer", () => {
  test.each([
    { buffer: 512, length: 497 },
    { buffer: 17, length: 2 },
    { buffer: 16, length: 1 },
  ])("$length bytes do not fit a buffer of $buffer, which stays posted", async ({ buffer, length }) => {
    const { driver, sender, device } = boot([buffer]);
    expect(device.mtu).toBe(buffer - 16);
    expect(sender.send(pattern(length))).toBe("too-large");
    await turns();
    expect(driver.receive()).toBeUndefined();
    expect(sender.send(pattern(length - 1))).toBe("sent");
    await turns();
    expect(driver.receive()?.used).toBe(16 + length - 1);
  });

  test("buffers beyond 65551 bytes give 65535", async () => {
    const { driver, sender, device } = boot([70_000]);
    expect(device.mtu).toBe(65535);
    expect(sender.send(pattern(65_535))).toBe("sent");
    await turns();
    expect(driver.receive()?.used).toBe(65_551);
  });

  test("65536 bytes do not fit any buffer", () => {
    expect(boot([70_000]).sender.send(pattern(65_536))).toBe("too-large");
  });

  test("buffers of several sizes", async () => {
    const { driver, sender, device } = boot([512], [32], [1024]);
    expect(sender.send(pattern(496))).toBe("sent");
    expect(sender.send(pattern(17))).toBe("too-large");
    expect(device.mtu).toBe(16);
    expect(sender.send(pattern(16))).toBe("sent");
    expect(sender.send(pattern(1008))).toBe("sent");
    await turns();
    expect(driver.receiveAll().map(({ len }) => len)).toEqual([496, 16, 1008]);
  });
});

describe("receive buffers too short for a header", () => {
  test.each(Array.from({ length: 16 }, (_, i) => i))(
    "%i bytes break the response queue, once",
    async (length) => {
      const errors: string[] = [];
      const device = new RpmsgDevice({ onError: (queue, error) => errors.push(`${queue} ${error.code}`) });
      const { endpoint } = openEndpoint(device, 1030);
      const sender = openSender(device, endpoint, { peer: 0x400 });
      const driver = new Driver(device);
      driver.post(length);
      driver.post(512);
      driver.boot(0);
      expect(sender.send("")).toBe("queued");
      await turns();
      expect(driver.receive()).toBeUndefined();
      expect(errors).toEqual(["0 buffer-too-small"]);
      expect(driver.failures).toEqual([{ queue: 0, code: "buffer-too-small" }]);
    },
  );
});

describe("receive buffers in pieces", () => {
  test.each([
    { name: "header and payload apart", pieces: [16, 496] },
    { name: "a header in two", pieces: [7, 505] },
    { name: "a header of 16 descriptors", pieces: [...Array.from({ length: 16 }, () => 1), 496] },
    { name: "empty descriptors between", pieces: [0, 8, 0, 8, 0, 100, 0, 396] },
    { name: "a payload in three", pieces: [100, 100, 312] },
  ])("$name", async ({ pieces }) => {
    const { driver, sender, device } = boot(pieces);
    expect(device.mtu).toBe(496);
    expect(sender.send(pattern(300))).toBe("sent");
    await turns();
    const message = driver.receive();
    expect(message).toMatchObject({ used: 316, len: 300, reserved: 0, flags: 0, dst: 0x400 });
    expect(message?.payload.equals(pattern(300))).toBe(true);
    expect(message?.buffer.subarray(316).every((byte) => byte === UNTOUCHED)).toBe(true);
  });

  test.each([1, 2, 3])("a buffer %i bytes from a word boundary", async (shift) => {
    const { driver, sender } = boot([512]);
    sender.send("first");
    driver.postAt({ address: driver.allocate(512, shift), length: 512 });
    expect(sender.send("second")).toBe("sent");
    await turns();
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["first", "second"]);
  });
});

test("a batch costs one call, and none where the driver wants none", async () => {
  const { driver, sender } = boot([64], [64], [64], [64]);
  sender.send("1");
  sender.send("2");
  expect(driver.calls).toEqual([0, 0]);
  await turns();
  expect(driver.calls).toEqual([1, 0]);
  driver.response.wantCalls(false);
  sender.send("3");
  await turns();
  expect(driver.calls).toEqual([1, 0]);
  driver.response.wantCalls(true);
  sender.send("4");
  await turns();
  expect(driver.calls).toEqual([2, 0]);
  expect(driver.receiveAll()).toHaveLength(4);
});

test("the bytes are copied before send returns", async () => {
  const { device, driver, sender } = boot();
  const bytes = Buffer.from("as it was");
  expect(sender.queue.send(undefined, bytes, 3, 3)).toBe("queued");
  bytes.fill(0);
  driver.post(512);
  device.kicked(0);
  await turns();
  expect(driver.receive()?.payload.toString()).toBe("it ");
});
