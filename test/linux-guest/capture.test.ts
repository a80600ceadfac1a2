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
/** An address that nobody has. */
const NOBODY = 5555;

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
          // Each another one, and of any bytes.
          const payloads = lengths.map((length) =>
            Buffer.from(Array.from({ length }, (_, i) => (length + 7 * i) % 256)),
          );
          for (const payload of payloads) {
            client.send(payload);
            expect(await client.next()).toEqual(payload);
          }
          // One that the guest announces, and nobody answers.
          await guest.run("guest-helper create-device /dev/rpmsg_ctrl0 rpmsg-raw 0x77 any");
          await running.endpoint("rpmsg-raw", ({ origin }) => origin === "guest");
          // One to an address that nobody has, from a device that is not announced.
          const agent = await guest.agent();
          await agent.command(`create-endpoint /dev/rpmsg_ctrl0 lost 0x30 ${NOBODY}`);
          const { output } = await guest.run("grep -lx lost /sys/class/rpmsg/*/name");
          const node = /rpmsg\d+/.exec(output)?.[0] ?? "";
          await guest.run(`until [ -c /dev/${node} ]; do usleep 20000; done`);
          await agent.command(`open lost /dev/${node}`);
          await agent.write("lost", "for nobody");
          const { counters } = await eventually("it is dropped", async () => {
            const now = await running.guest("vm0");
            return now.counters.unknownAddress > 0 ? now : undefined;
          });
          expect(counters.unknownAddress).toBe(1);
          const total = counters.messagesToGuest + counters.messagesFromGuest + counters.unknownAddress;
          await eventually("all is captured", () => (captured.messages.length >= total ? true : undefined));

          const file = join(directory, "vm0.pcapng");
          writeFileSync(file, Buffer.concat(captured.items.map(({ block }) => block)));
          const packets = await dissect(file, [
            ...["rpmsg.direction", "rpmsg.endpoint", "rpmsg.src", "rpmsg.dst", "rpmsg.len", "rpmsg.data"],
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
            { ...back, "rpmsg.direction": "from guest", ...content(Buffer.from("hello")) },
            ...payloads.flatMap((payload) => [
              { ...ends, "rpmsg.direction": "to guest", ...content(payload) },
              { ...back, "rpmsg.direction": "from guest", ...content(payload) },
            ]),
          ]);
          expect(packets.filter((each) => each["frame.comment"] !== "")).toEqual([
            {
              ...{ "rpmsg.direction": "from guest", "rpmsg.endpoint": "" },
              ...{ "rpmsg.src": String(0x30), "rpmsg.dst": String(NOBODY) },
              ...content(Buffer.from("for nobody")),
              ...{ "rpmsg.ns.name": "", "rpmsg.ns.addr": "" },
              "frame.comment": `unknown address: nobody has ${NOBODY}; dropped`,
            },
          ]);
        } finally {
          if (guest.failure !== undefined) console.error(guest.transcript);
          await guest.kill();
        }
      },
    );
  },
);

/** A payload, as tshark shows it. */
function content(payload: Buffer): Record<"rpmsg.len" | "rpmsg.data", string> {
  return { "rpmsg.len": String(payload.length), "rpmsg.data": payload.toString("hex") };
}
