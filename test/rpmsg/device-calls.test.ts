import { expect, test } from "vitest";
import { RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender } from "./support/device-endpoints.ts";

/** A guest that listens, and a sender to it. */
function boot(onCall: () => void) {
  const device = new RpmsgDevice();
  const { endpoint } = openEndpoint(device);
  const sender = openSender(device, endpoint, { peer: 0x400 });
  const driver = new Driver(device, { onCall }).boot();
  return { device, driver, sender };
}

function textsOf(driver: Driver): string[] {
  return driver.receiveAll().map(({ payload }) => payload.toString());
}

test("guests that are sent to in one turn are called once each, when all of them can see their messages", async () => {
  const seen: string[][] = [];
  const look = (): void => {
    seen.push(guests.map(({ driver }) => textsOf(driver).join(" ")));
  };
  const guests = [boot(look), boot(look), boot(look)];
  await turns();
  for (const round of ["a", "b"]) for (const { sender } of guests) expect(sender.send(round)).toBe("sent");
  expect(seen).toEqual([]);
  await turns();
  expect(guests.map(({ driver }) => driver.calls[RESPONSE_QUEUE])).toEqual([1, 1, 1]);
  expect(seen).toEqual([
    ["a b", "a b", "a b"],
    ["", "", ""],
    ["", "", ""],
  ]);
});

test("a guest that is sent to when another one is called is called in a later turn", async () => {
  const second = boot(() => {});
  const first = boot(() => void second.sender.send("more"));
  await turns();
  first.sender.send("one");
  await turns();
  expect(textsOf(second.driver)).toEqual(["more"]);
  expect(second.driver.calls[RESPONSE_QUEUE]).toBe(1);
});

test("a guest that stops in the turn in which it was sent to is called once, and the others too", async () => {
  const guests = [boot(() => {}), boot(() => {})] as const;
  await turns();
  for (const { sender } of guests) sender.send("last");
  guests[0].device.stop();
  await turns();
  for (const { driver } of guests) {
    expect(driver.receiveAll()).toHaveLength(1);
    expect(driver.calls[RESPONSE_QUEUE]).toBe(1);
  }
});
