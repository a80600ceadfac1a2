import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import { Captured } from "../server/capture/support.ts";
import { dissect, noTshark } from "../server/capture/tshark.ts";
import { eventually, testBridge, testDirectory } from "../server/support.ts";

const available = LinuxGuest.availability("rt-armmp");
const why = [available.ok ? undefined : available.reason, noTshark].find((each) => each !== undefined);

const RAW = 1040;

describe.skipIf(why !== undefined)(
  `a capture of a stock Linux guest${why ? ` (not here: ${why})` : ""}`,
  () => {
    test.each(["none", "process"] as const)(
      "isolation %s: names, addresses and lengths are right, and the counts those of the bridge",
      { timeout: 180_000 },
      async (isolation) => {
        const directory = testDirectory();
        const path = join(directory, "vm0.sock");
        const endpoints = [{ name: "rpmsg-raw", address: RAW }];
        const running = await testBridge({
          guests: { vm0: { kind: "vhost-user", path, isolation, endpoints } },
        });
        const captured = await Captured.start(running.url);
        const guest = await LinuxGuest.boot({ socketPath: path, flavour: "rt-armmp" });
        try {
          await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
          guest.background("guest-helper serve /dev/rpmsg0 raw hello");
          const { peer } = await running.endpoint("rpmsg-raw", ({ state }) => state === "connected");
          const client = await running.connect("/ws/v1/vm0/rpmsg-raw");
          const lengths = [1, 2, 3, 100, 495, 496];
          for (const length of lengths) {
            client.send(Buffer.alloc(length, "x"));
            expect(await client.next()).toHaveLength(length);
          }
          // One that the guest announces, and nobody answers.
          await guest.run("guest-helper create-device /dev/rpmsg_ctrl0 rpmsg-raw 0x77 any");
          await running.endpoint("rpmsg-raw", ({ origin }) => origin === "guest");
          const { counters } = await running.guest("vm0");
          const total = counters.messagesToGuest + counters.messagesFromGuest + counters.unknownAddress;
          await eventually("all is captured", () => (captured.messages.length >= total ? true : undefined));

          const file = join(directory, "vm0.pcapng");
          writeFileSync(file, Buffer.concat(captured.items.map(({ block }) => block)));
          const packets = await dissect(file, [
            ...["rpmsg.direction", "rpmsg.endpoint", "rpmsg.src", "rpmsg.dst", "rpmsg.len"],
            ...["rpmsg.ns.name", "rpmsg.ns.addr", "frame.comment"],
          ] as const);
          const passed = packets.filter((each) => each["frame.comment"] === "");
          const of = (direction: string) => passed.filter((each) => each["rpmsg.direction"] === direction);
          const bytes = (direction: string) =>
            of(direction).reduce((sum, each) => sum + Number(each["rpmsg.len"]), 0);
          expect(of("to guest")).toHaveLength(counters.messagesToGuest);
          expect(bytes("to guest")).toBe(counters.bytesToGuest);
          expect(of("from guest")).toHaveLength(counters.messagesFromGuest);
          expect(bytes("from guest")).toBe(counters.bytesFromGuest);

          const names = packets.filter((each) => each["rpmsg.ns.name"] !== "");
          expect(
            names.map((each) => [each["rpmsg.direction"], each["rpmsg.ns.name"], each["rpmsg.ns.addr"]]),
          ).toEqual([
            ["to guest", "rpmsg-raw", String(RAW)],
            ["from guest", "rpmsg-raw", String(0x77)],
          ]);
          const raw = packets.filter((each) => each["rpmsg.endpoint"] === "rpmsg-raw");
          const ends = { "rpmsg.src": String(RAW), "rpmsg.dst": String(peer) };
          const back = { "rpmsg.src": String(peer), "rpmsg.dst": String(RAW) };
          expect(raw).toMatchObject([
            { ...back, "rpmsg.direction": "from guest", "rpmsg.len": "5" },
            ...lengths.flatMap((length) => [
              { ...ends, "rpmsg.direction": "to guest", "rpmsg.len": String(length) },
              { ...back, "rpmsg.direction": "from guest", "rpmsg.len": String(length) },
            ]),
          ]);
        } finally {
          if (guest.failure !== undefined) console.error(guest.transcript);
          await guest.kill();
        }
      },
    );
  },
);
