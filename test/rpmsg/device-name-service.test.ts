import { describe, expect, test } from "vitest";
import { RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, nameServiceMessage, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender } from "./support/device-endpoints.ts";

const DESTROY = 1;

function boot(options: { nameService?: boolean; limit?: number } = {}) {
  const heard: string[] = [];
  const device = new RpmsgDevice(
    {
      onAnnounced: ({ name, address }) => heard.push(`+${name}@${address}`),
      onWithdrawn: ({ name, address }) => heard.push(`-${name}@${address}`),
      onTold: ({ name, told }) => heard.push(`${name} ${told ? "told" : "not told"}`),
      onReset: (generation) => heard.push(`reset ${generation}`),
    },
    options.limit === undefined ? {} : { maxGuestAnnouncements: options.limit },
  );
  const driver = new Driver(device, { nameService: options.nameService ?? true });
  return { device, driver, heard };
}

/** What the guest was told, as `+name@address` and `-name@address`. */
function toldTo(driver: Driver): string[] {
  return driver.receiveAll().map(({ src, dst, payload }) => {
    expect([src, dst, payload.length]).toEqual([53, 53, 40]);
    const name = payload.toString("latin1", 0, 32).replace(/\0.*$/s, "");
    return `${payload.readUInt32LE(36) === DESTROY ? "-" : "+"}${name}@${payload.readUInt32LE(32)}`;
  });
}

describe("up: what the guest announces", () => {
  test("create and destroy, keyed by name and address", () => {
    const { device, driver, heard } = boot();
    driver.boot();
    driver.send(1, 53, nameServiceMessage("echo", 0x400));
    driver.send(1, 53, nameServiceMessage("echo", 0x401));
    driver.send(1, 53, nameServiceMessage("tty", 0x400));
    driver.send(1, 53, nameServiceMessage("echo", 0x400, DESTROY));
    expect(heard).toEqual(["+echo@1024", "+echo@1025", "+tty@1024", "-echo@1024"]);
    expect([...device.guestAnnouncements]).toEqual([
      { name: "echo", address: 0x401 },
      { name: "tty", address: 0x400 },
    ]);
    expect(device.counters).toMatchObject({ nameServiceIgnored: 0, nameServiceMalformed: 0 });
  });

  test("the message's address counts, not the sender's", () => {
    const { driver, heard } = boot();
    driver.boot();
    driver.send(0x777, 53, nameServiceMessage("echo", 0x400));
    expect(heard).toEqual(["+echo@1024"]);
  });

  test("an exact duplicate is ignored, and so is the destroy of the unknown", () => {
    const { device, driver, heard } = boot();
    driver.boot();
    driver.send(1, 53, nameServiceMessage("echo", 0x400));
    driver.send(1, 53, nameServiceMessage("echo", 0x400));
    driver.send(1, 53, nameServiceMessage("echo", 0x999, DESTROY));
    driver.send(1, 53, nameServiceMessage("ech", 0x400, DESTROY));
    expect(heard).toEqual(["+echo@1024"]);
    expect(device.counters.nameServiceIgnored).toBe(3);
  });

  test.each([0, 1, 39, 41, 72, 496])("a message of %i bytes is malformed", (length) => {
    const { device, driver, heard } = boot();
    driver.boot();
    const bytes = Buffer.alloc(length);
    nameServiceMessage("echo", 0x400).copy(bytes);
    driver.send(1, 53, bytes);
    expect(heard).toEqual([]);
    expect(device.counters.nameServiceMalformed).toBe(1);
    expect(driver.returned()).toEqual([0]);
  });

  test("ANY cannot be announced", () => {
    const { device, driver, heard } = boot();
    driver.boot();
    driver.send(1, 53, nameServiceMessage("echo", 0xffff_ffff));
    expect(heard).toEqual([]);
    expect(device.counters.nameServiceMalformed).toBe(1);
  });

  test.each([
    { flags: 0, known: true },
    { flags: 1, known: false },
    { flags: 2, known: true }, // NuttX: CREATE_ACK acts as CREATE
    { flags: 3, known: false },
    { flags: 0xffff_fffe, known: true },
  ])("flags $flags are tested with & DESTROY", ({ flags, known }) => {
    const { device, driver } = boot();
    driver.boot();
    if (!known) driver.send(1, 53, nameServiceMessage("echo", 0x400));
    driver.send(1, 53, nameServiceMessage("echo", 0x400, flags));
    expect([...device.guestAnnouncements]).toHaveLength(known ? 1 : 0);
  });

  test("a name of 32 bytes without NUL, and one of raw bytes", () => {
    const { driver, device } = boot();
    driver.boot();
    driver.send(1, 53, nameServiceMessage("x".repeat(32), 1));
    driver.send(1, 53, nameServiceMessage("\xff\x01é", 2));
    expect([...device.guestAnnouncements].map(({ name }) => name)).toEqual(["x".repeat(32), "\xff\x01é"]);
  });

  test("a flood of creates stops at the limit, and a destroy makes room", () => {
    const { driver, device } = boot({ limit: 3 });
    driver.boot();
    for (let i = 0; i < 10; i++) driver.send(1, 53, nameServiceMessage(`service ${i}`, i));
    expect([...device.guestAnnouncements]).toHaveLength(3);
    expect(device.counters.nameServiceLimit).toBe(7);
    driver.send(1, 53, nameServiceMessage("service 0", 0, DESTROY));
    driver.send(1, 53, nameServiceMessage("service 9", 9));
    expect([...device.guestAnnouncements].map(({ address }) => address)).toEqual([1, 2, 9]);
  });
});

describe("down: what the host announces", () => {
  test("before and after the attachment, from 53 to 53", async () => {
    const { device, driver, heard } = boot();
    device.announce("early", 1030);
    driver.boot();
    device.announce("late", 1031);
    await turns();
    expect(toldTo(driver)).toEqual(["+early@1030", "+late@1031"]);
    expect(heard).toEqual(["early told", "late told"]);
  });

  test("the bytes of a create: no rest of memory behind the name", async () => {
    const { device, driver } = boot();
    device.announce("ab", 0x0102_0304);
    driver.boot();
    await turns();
    const expected = Buffer.alloc(40);
    expected.set([0x61, 0x62], 0);
    expected.set([0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0], 32);
    expect(driver.receive()?.payload).toEqual(expected);
  });

  test("announcements wait while queue 0 has no buffer, none is lost", async () => {
    const { device, driver, heard } = boot();
    for (let i = 0; i < 5; i++) device.announce(`service ${i}`, 2000 + i);
    driver.boot(2);
    await turns();
    expect(heard).toEqual(["service 0 told", "service 1 told"]);
    for (let i = 0; i < 3; i++) driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    expect(toldTo(driver)).toEqual([0, 1, 2, 3, 4].map((i) => `+service ${i}@${2000 + i}`));
    expect(heard).toHaveLength(5);
  });

  test("a withdrawal follows its announcement, also when both wait", async () => {
    const { device, driver } = boot();
    driver.boot(0);
    device.withdraw(device.announce("brief", 1030));
    driver.post(512);
    driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    await turns();
    expect(toldTo(driver)).toEqual(["+brief@1030", "-brief@1030"]);
  });

  test("what is withdrawn before the guest listens is never told, nor is it after a reset", async () => {
    const { device, driver } = boot();
    device.withdraw(device.announce("never", 1030));
    driver.boot();
    const gone = device.announce("gone", 1031);
    device.withdraw(gone);
    device.withdraw(gone);
    await turns();
    expect(toldTo(driver)).toEqual(["+gone@1031", "-gone@1031"]);
    device.reset();
    const second = new Driver(device).boot();
    await turns();
    expect(toldTo(second)).toEqual([]);
  });

  test("after a reset all are told again, those that waited only once", async () => {
    const { device, driver, heard } = boot();
    device.announce("one", 1);
    device.announce("two", 2);
    driver.boot(1);
    await turns();
    device.reset();
    expect(heard).toEqual(["one told", "reset 2", "one not told"]);
    const second = new Driver(device).boot();
    await turns();
    expect(toldTo(second)).toEqual(["+one@1", "+two@2"]);
  });

  test("without the feature nothing is sent to 53, neither create nor destroy", async () => {
    const { device, driver, heard } = boot({ nameService: false });
    const announcement = device.announce("early", 1030);
    driver.boot();
    device.announce("late", 1031);
    device.withdraw(announcement);
    await turns();
    expect(driver.receiveAll()).toEqual([]);
    expect(heard).toEqual([]);
    expect(device.nameService).toBe(false);
  });

  test("the same name and address twice is refused, with another address it is not", () => {
    const { device } = boot();
    const first = device.announce("echo", 1);
    device.announce("echo", 2);
    expect(() => device.announce("echo", 1)).toThrow(expect.objectContaining({ code: "already-announced" }));
    device.withdraw(first);
    expect(device.announce("echo", 1)).not.toBe(first);
  });

  test.each(["", "x".repeat(32), "a\0b", "\u0100"])("the name %j is invalid", (name) => {
    const { device } = boot();
    expect(() => device.announce(name, 1)).toThrow(expect.objectContaining({ code: "name-invalid" }));
  });

  test("announcements share the response queue with messages and keep to the turn", async () => {
    const { device, driver } = boot();
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint, { peer: 9 });
    driver.boot(0);
    for (const text of ["a", "b"]) sender.send(text);
    device.announce("x", 1);
    device.announce("y", 2);
    for (let i = 0; i < 4; i++) driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    await turns();
    expect(driver.receiveAll().map(({ dst }) => dst)).toEqual([9, 53, 9, 53]);
  });
});

test("address 53 cannot be taken", () => {
  const device = new RpmsgDevice();
  expect(() => openEndpoint(device, 53)).toThrow(expect.objectContaining({ code: "address-in-use" }));
});
