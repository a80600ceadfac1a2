import { expect, test } from "vitest";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender, texts } from "./support/device-endpoints.ts";

// Buffers are visible before the driver listens: what is sent then is lost ("msg received with no recipient").

test("nothing goes out before the first kick of queue 0, though buffers are there", async () => {
  const device = new RpmsgDevice();
  const { endpoint } = openEndpoint(device, 1030);
  device.announce("rpmsg-raw", 1030);
  const sender = openSender(device, endpoint, { peer: 0x400 });
  const driver = new Driver(device);
  driver.post(512);
  driver.post(512);
  driver.start();
  expect(sender.send("early")).toBe("queued");
  await turns();
  expect(driver.receiveAll()).toEqual([]);
  expect(driver.calls).toEqual([0, 0]);

  driver.kick(RESPONSE_QUEUE);
  await turns();
  const messages = driver.receiveAll();
  expect(messages.map(({ dst }) => dst).toSorted((a, b) => a - b)).toEqual([53, 0x400]);
  expect(messages.find(({ dst }) => dst === 0x400)?.payload.toString()).toBe("early");
});

test("kicks of queue 1 do not count as the first kick", async () => {
  const device = new RpmsgDevice();
  const { endpoint, received } = openEndpoint(device, 1030);
  device.announce("rpmsg-raw", 1030);
  const driver = new Driver(device);
  driver.post(512);
  driver.start();
  driver.send(0x400, 1030, "hello");
  await turns();
  expect(texts(received)).toEqual(["hello"]);
  expect(openSender(device, endpoint).send("reply")).toBe("queued");
  device.rescan();
  await turns();
  expect(driver.receiveAll()).toEqual([]);
});

test("the guest's messages are taken before any kick: they may have been sent before the device ran", async () => {
  const device = new RpmsgDevice();
  const { received } = openEndpoint(device, 1030);
  const driver = new Driver(device);
  driver.offer(0x400, 1030, "waiting");
  driver.start();
  await turns();
  expect(texts(received)).toEqual(["waiting"]);
  expect(driver.returned()).toEqual([0]);
});

test("the first kick tells the size of the guest's buffers", () => {
  const device = new RpmsgDevice();
  const driver = new Driver(device);
  driver.post(2048);
  driver.start();
  expect(device.mtu).toBe(496);
  driver.kick(RESPONSE_QUEUE);
  expect(device.mtu).toBe(2032);
});

test("after a reset the next first kick is waited for again", async () => {
  const device = new RpmsgDevice();
  device.announce("rpmsg-raw", 1030);
  new Driver(device).boot();
  await turns();
  device.reset();
  const second = new Driver(device);
  second.post(512);
  second.start();
  await turns();
  expect(second.receiveAll()).toEqual([]);
  second.kick(RESPONSE_QUEUE);
  await turns();
  expect(second.receiveAll()).toHaveLength(1);
});

test("kicks while no queue runs are ignored", () => {
  const device = new RpmsgDevice();
  device.kicked(RESPONSE_QUEUE);
  device.kicked(REQUEST_QUEUE);
  device.rescan();
  expect(device.state).toBe("detached");
  expect(device.stop()).toBeUndefined();
});
