import { expect, test } from "vitest";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import { attachInProcess } from "../../guest/in-process.ts";
import type { GuestAnnouncement } from "../../rpmsg/index.ts";
import { RpmsgDevice } from "../../rpmsg/index.ts";

test("an emulated guest announces its five services and echoes", async () => {
  const announced: GuestAnnouncement[] = [];
  let all: () => void = () => {};
  const ready = new Promise<void>((resolve) => {
    all = resolve;
  });
  const device = new RpmsgDevice({
    onAnnounced: (announcement) => announced.push(announcement) === 5 && all(),
  });
  const link = attachInProcess(new EmulatedGuest(), device);
  await ready;
  expect(announced.map((each) => each.name)).toEqual(["echo", "tty", "sensor", "source", "sink"]);
  const reply = await new Promise<string>((resolve) => {
    const endpoint = device.createEndpoint((_src, bytes, offset, length) =>
      resolve(Buffer.from(bytes.subarray(offset, offset + length)).toString()),
    );
    const queue = device.createSendQueue(
      endpoint,
      { peer: announced[0]?.address },
      {},
      { limit: 1000, timeout: 1000 },
    );
    expect(queue.send(undefined, Buffer.from("hello"), 0, 5)).toMatch(/^(sent|queued)$/);
  });
  expect(reply).toBe("hello");
  link.close();
  expect(device.generation).toBe(2);
});
