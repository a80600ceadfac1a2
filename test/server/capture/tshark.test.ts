import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { interfaceBlock, packetBlock, sectionBlock } from "../../../server/capture/pcapng.ts";
import { titledWith } from "../../support/missing-tool.ts";
import { testBridge, testDirectory } from "../support.ts";
import { Captured } from "./support.ts";
import { dissect, noTshark, packetList } from "./tshark.ts";

/** tshark starts slowly. */
const SLOW = 60_000;

const FIELDS = [
  ...["frame.interface_name", "rpmsg.guest", "rpmsg.endpoint", "rpmsg.direction", "rpmsg.src", "rpmsg.dst"],
  ...[
    "rpmsg.len",
    "rpmsg.text",
    "rpmsg.data",
    "rpmsg.ns.name",
    "rpmsg.ns.addr",
    "rpmsg.ns.flags",
    "frame.comment",
  ],
] as const;

function save(captured: Captured): string {
  const file = join(testDirectory(), "capture.pcapng");
  writeFileSync(file, Buffer.concat(captured.items.map(({ block }) => block)));
  return file;
}

describe.skipIf(noTshark !== undefined)(titledWith(noTshark, "tshark"), { timeout: SLOW }, () => {
  test("shows names, addresses, directions and payloads of the emulated guest's traffic", async () => {
    const running = await testBridge();
    const captured = await Captured.start(running.url);
    const before = (await running.guest("demo")).counters;
    const tty = await running.connect("/ws/v1/demo/tty?local=2000");
    tty.send("echo hi\n");
    await tty.next();
    const echo = await running.connect("/ws/v1/demo/echo?local=2001");
    echo.send(Buffer.from("00ff", "hex"));
    await echo.next();
    const service = running.bridge.announce("demo", "svc", 3000);
    await captured.until("the guest speaks", () => captured.messages.at(-1)?.endpoint === "svc");
    running.bridge.withdraw(service);
    await captured.until("it is withdrawn", () => captured.messages.at(-1)?.nameService?.created === false);
    const after = (await running.guest("demo")).counters;

    const file = save(captured);
    const packets = await dissect(file, FIELDS);
    const ttyAddress = String((await running.endpoint("tty")).address);
    const echoAddress = String((await running.endpoint("echo")).address);
    expect(packets).toMatchObject([
      {
        ...{ "frame.interface_name": "demo/tty", "rpmsg.guest": "demo", "rpmsg.endpoint": "tty" },
        ...{ "rpmsg.direction": "to guest", "rpmsg.src": "2000", "rpmsg.dst": ttyAddress },
        ...{ "rpmsg.len": "8", "rpmsg.text": "echo hi\\n", "rpmsg.data": "6563686f2068690a" },
      },
      { "rpmsg.direction": "from guest", "rpmsg.src": ttyAddress, "rpmsg.dst": "2000" },
      { "rpmsg.endpoint": "echo", "rpmsg.src": "2001", "rpmsg.data": "00ff", "rpmsg.text": "" },
      { "rpmsg.endpoint": "echo", "rpmsg.src": echoAddress, "rpmsg.dst": "2001", "rpmsg.data": "00ff" },
      {
        ...{ "rpmsg.endpoint": "", "rpmsg.src": "53", "rpmsg.dst": "53", "rpmsg.len": "40" },
        ...{ "rpmsg.ns.name": "svc", "rpmsg.ns.addr": "3000", "rpmsg.ns.flags": "0" },
      },
      { "rpmsg.endpoint": "svc", "rpmsg.direction": "from guest", "rpmsg.dst": "3000", "rpmsg.len": "0" },
      { "rpmsg.ns.name": "svc", "rpmsg.ns.flags": "1" },
    ]);
    const count = (direction: string) =>
      packets.filter((each) => each["rpmsg.direction"] === direction).length;
    expect(count("to guest")).toBe(after.messagesToGuest - before.messagesToGuest);
    expect(count("from guest")).toBe(after.messagesFromGuest - before.messagesFromGuest);
    const lines = await packetList(file);
    expect(lines[0]).toMatch(
      new RegExp(`host:2000 → demo:${ttyAddress} +RPMsg 24 tty: 8 bytes: echo hi\\\\n$`),
    );
    expect(lines[4]).toMatch(/RPMsg 56 name service: create svc at 3000$/);
  });

  test("shows what is malformed, and why it was dropped", async () => {
    const file = join(testDirectory(), "bad.pcapng");
    const message = (length: number, comments: string[]) => {
      const bytes = Buffer.alloc(20);
      bytes.writeUInt16LE(length, 12);
      return (size: number) =>
        packetBlock({ interface: 0, time: 1n, toGuest: false, originalLength: size, comments }, bytes, size);
    };
    const blocks = [
      sectionBlock("", ""),
      interfaceBlock("vm", ""),
      message(4, [])(20),
      message(9, ["why"])(20),
    ];
    writeFileSync(file, Buffer.concat([...blocks, message(0, ["short"])(7)]));
    const fields = ["rpmsg.len", "rpmsg.malformed", "frame.comment"] as const;
    expect(await dissect(file, fields)).toMatchObject([
      { "rpmsg.len": "4", "rpmsg.malformed": "", "frame.comment": "" },
      { "rpmsg.len": "9", "frame.comment": "why" },
      { "rpmsg.len": "", "frame.comment": "short" },
    ]);
    expect(
      (await dissect(file, ["frame.number"], "rpmsg.malformed")).map((each) => each["frame.number"]),
    ).toEqual(["2", "3"]);
  });

  test("a name without its zero, the highest addresses, and what would steer a terminal", async () => {
    const file = join(testDirectory(), "names.pcapng");
    const announce = (name: Buffer) => {
      const bytes = Buffer.alloc(56);
      bytes.writeUInt32LE(0xffff_ffff, 0);
      bytes.writeUInt32LE(53, 4);
      bytes.writeUInt16LE(40, 12);
      name.copy(bytes, 16);
      bytes.writeUInt32LE(0xffff_ffff, 48);
      const facts = { interface: 0, time: 1n, toGuest: false, originalLength: 56, comments: [] };
      return packetBlock(facts, bytes, 56);
    };
    const names = ["a".repeat(32), "x\u0007\u001b[31my\0z"].map((name) => announce(Buffer.from(name)));
    writeFileSync(file, Buffer.concat([sectionBlock("", ""), interfaceBlock("vm", ""), ...names]));
    const fields = ["rpmsg.src", "rpmsg.dst", "rpmsg.ns.name", "rpmsg.ns.addr", "_ws.lua.error"] as const;
    const [first, second] = await dissect(file, fields);
    const addresses = { "rpmsg.src": "4294967295", "rpmsg.dst": "53", "rpmsg.ns.addr": "4294967295" };
    expect(first).toEqual({ ...addresses, "rpmsg.ns.name": "a".repeat(32), "_ws.lua.error": "" });
    expect(second).toMatchObject({ ...addresses, "_ws.lua.error": "" });
    const lines = await packetList(file);
    expect(lines[0]).toMatch(new RegExp(`RPMsg 56 name service: create ${"a".repeat(32)} at 4294967295$`));
    expect(lines[1]).toMatch(/RPMsg 56 name service: create x\.y at 4294967295$/);
  });

  test("a display filter finds an endpoint, and times are nanoseconds", async () => {
    const file = join(testDirectory(), "two.pcapng");
    const packet = (id: number, time: bigint) =>
      packetBlock(
        { interface: id, time, toGuest: true, originalLength: 16, comments: [] },
        Buffer.alloc(16),
        16,
      );
    const blocks = [sectionBlock("", ""), interfaceBlock("vm/a b", ""), interfaceBlock("vm/c", "")];
    writeFileSync(file, Buffer.concat([...blocks, packet(0, 1_700_000_000_123_456_789n), packet(1, 5n)]));
    expect(await dissect(file, ["frame.time_epoch"], 'rpmsg.endpoint == "a b"')).toEqual([
      { "frame.time_epoch": "1700000000.123456789" },
    ]);
  });
});
