import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Endpoint, Guest } from "../../schemas/index.ts";
import { Problem } from "../../schemas/index.ts";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import type { Client, RunningBridge } from "../server/support.ts";
import { eventually, startBridge } from "../server/support.ts";

const available = LinuxGuest.availability("rt-armmp");
const why = available.ok ? "" : ` (not here: ${available.reason})`;

/** A boot under software emulation takes seconds, and more on a busy machine. */
const SLOW = 180_000;

type Agent = Awaited<ReturnType<LinuxGuest["agent"]>>;

/** What the list says of an endpoint. */
type Row = readonly [
  name: string,
  origin: Endpoint["origin"],
  ns: Endpoint["ns"],
  address: number | null,
  peer: number | null,
  state: Endpoint["state"],
];

// Few boots for all: a test takes the guest as the one before has left it.
describe.skipIf(!available.ok)(`name service with a stock Linux guest${why}`, { timeout: SLOW }, () => {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-"));
  const path = join(directory, "vm.sock");
  let running: RunningBridge;
  let guest: LinuxGuest;
  let agent: Agent;
  /** Clients that are there when the guest is reset. */
  const held: Client[] = [];

  beforeAll(async () => {
    const endpoints = [
      { name: "rpmsg-raw", ns: "down" as const, address: 1040 },
      { name: "rpmsg-tty", ns: "down" as const, address: 1041 },
      { name: "rpmsg-raw", ns: "both" as const, address: 1042 },
      { name: "agreed", ns: "none" as const, address: 2000 },
      { name: "fixed", ns: "none" as const, address: 2001, peer: 0x31 },
      { name: "rpmsg-tty", ns: "up" as const, address: 0x60, local: 2002 },
    ];
    running = await startBridge({ guests: { vm: { kind: "vhost-user", path, endpoints } } });
  });

  afterEach(({ task }) => {
    if (task.result?.state === "fail") console.error(guest.transcript);
    expect(guest.failure).toBeUndefined();
  });

  afterAll(async () => {
    await guest.kill();
    await running.close();
    rmSync(directory, { recursive: true });
  }, SLOW);

  /** Endpoints by their path, below that of the guest. */
  const listed = async (): Promise<Record<string, Row>> =>
    Object.fromEntries(
      (await running.endpoints()).map(({ name, origin, ns, address, peer, state, path }) => [
        path.replace("/ws/v1/vm/", ""),
        [name, origin, ns, address, peer, state],
      ]),
    );

  const at = (path: string, state: Endpoint["state"]) =>
    running.endpoint(
      path.split("@")[0] ?? "",
      (each) => each.path.endsWith(`/${path}`) && each.state === state,
    );

  const send = async ({ id }: Endpoint): Promise<Response> =>
    fetch(`${running.url}/api/v1/guests/vm/endpoints/${id}/messages?timeout=20`, {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: "anybody?",
    });

  const expectNoPeer = async (endpoint: Endpoint): Promise<void> => {
    expect(Problem.parse(await (await send(endpoint)).json())).toMatchObject({ code: "no-peer" });
  };

  /** The devices of the guest's rpmsg bus but its own two: `NAME.SOURCE.DESTINATION`, -1 where it was any. */
  const bus = async (): Promise<string[]> => {
    const { output } = await guest.run("ls /sys/bus/rpmsg/devices");
    const names = output.split("\n").map((each) => each.replace(/^virtio\d+\./, ""));
    return names.filter((each) => !/^rpmsg_(ctrl|ns)\./.test(each)).toSorted();
  };

  /** The character device or terminal of a device of that bus, as soon as it is there. */
  const nodeOf = async (device: string, kind: "rpmsg" | "tty"): Promise<string> => {
    const node = `/sys/bus/rpmsg/devices/virtio*.${device}/${kind}/*`;
    const { output } = await guest.run(`until [ -e ${node} ]; do usleep 20000; done; basename ${node}`);
    await guest.run(`until [ -c /dev/${output} ]; do usleep 20000; done`);
    return output;
  };

  /** The address that a character device of the guest has. */
  const sourceOf = async (node: string): Promise<number> =>
    Number((await guest.run(`cat /sys/class/rpmsg/${node}/src`)).output);

  /** The character device that was made with that name, not by an announcement. */
  const nodeNamed = async (name: string): Promise<string> => {
    const { output } = await guest.run(`grep -lx ${name} /sys/class/rpmsg/*/name`);
    const node = /rpmsg\d+/.exec(output)?.[0] ?? "";
    await guest.run(`until [ -c /dev/${node} ]; do usleep 20000; done`);
    return node;
  };

  /** A message each way, between a client and a device that the agent has open. */
  const talk = async (client: Client, handle: string, text: string): Promise<void> => {
    client.send(`${text}?`);
    expect((await agent.read(handle)).toString()).toBe(`${text}?`);
    await agent.write(handle, `${text}!`);
    expect(await client.text()).toBe(`${text}!`);
  };

  const boot = async (): Promise<void> => {
    guest = await LinuxGuest.boot({ socketPath: path, flavour: "rt-armmp" });
    agent = await guest.agent();
  };

  const state = async (wanted: Guest["state"], generation: number): Promise<void> => {
    await eventually(`${wanted} in generation ${generation}`, async () => {
      const now = await running.guest("vm");
      return now.state === wanted && now.generation === generation ? true : undefined;
    });
  };

  const reload = async (): Promise<void> => {
    expect((await guest.run("rmmod virtio_rpmsg_bus")).status).toBe(0);
    await state("suspended", 1);
    expect((await guest.run("insmod /modules/virtio_rpmsg_bus.ko")).status).toBe(0);
  };

  const bootAgain = async (): Promise<void> => {
    await guest.powerOff();
    await state("waiting", 3);
    await boot();
  };

  describe.each([
    ["after its boot", 1, boot],
    ["after its driver was loaded anew", 2, reload],
    ["after it was switched off and on", 3, bootAgain],
  ] as const)("%s", (_when, generation, begin) => {
    beforeAll(async () => {
      await begin();
      await state("attached", generation);
    }, SLOW);

    test("ends the clients that there were, and withdraws what the guest had announced", async () => {
      expect(held).toHaveLength(generation === 1 ? 0 : 6);
      for (const client of held.splice(0)) expect((await client.closed).code).toBe(4001);
      await at("rpmsg-tty", "announced");
      await at("rpmsg-raw@1042", "announced");
      expect(await listed()).toEqual({
        "rpmsg-raw": ["rpmsg-raw", "host", "down", 1040, null, "announced"],
        "rpmsg-tty": ["rpmsg-tty", "host", "down", 1041, null, "announced"],
        "rpmsg-raw@1042": ["rpmsg-raw", "host", "both", 1042, null, "announced"],
        agreed: ["agreed", "host", "none", 2000, null, "declared"],
        fixed: ["fixed", "host", "none", 2001, 0x31, "connected"],
        "rpmsg-tty@96": ["rpmsg-tty", "guest", "up", 0x60, null, "declared"],
      });
    });

    test("the guest hears of down and both, each once, and of none and up nothing", async () => {
      for (const device of ["rpmsg-raw.-1.1040", "rpmsg-raw.-1.1042"]) await nodeOf(device, "rpmsg");
      await nodeOf("rpmsg-tty.-1.1041", "tty");
      expect(await bus()).toEqual(["rpmsg-raw.-1.1040", "rpmsg-raw.-1.1042", "rpmsg-tty.-1.1041"]);
      // What the kernel says to an announcement that it knows already.
      expect(guest.transcript).not.toMatch(/already exist/);
    });

    test("down: its address is known when it has spoken, of a character device and of a terminal", async () => {
      for (const [path, device, kind] of [
        ["rpmsg-raw", "rpmsg-raw.-1.1040", "rpmsg"],
        ["rpmsg-tty", "rpmsg-tty.-1.1041", "tty"],
      ] as const) {
        await expectNoPeer(await at(path, "announced"));
        const client = await running.connect(`/ws/v1/vm/${path}`);
        const node = await nodeOf(device, kind);
        await agent.command(`open down /dev/${node}`);
        await agent.write("down", "hello");
        expect(await client.text()).toBe("hello");
        const { peer } = await at(path, "connected");
        if (kind === "rpmsg") expect(peer).toBe(await sourceOf(node));
        else expect(peer).toBeGreaterThanOrEqual(1024);
        await talk(client, "down", `down over ${path}`);
        await agent.command("close down");
        held.push(client);
      }
    });

    test("none, the peer learned: an endpoint with fixed addresses talks when it has spoken", async () => {
      const before = await bus();
      await expectNoPeer(await at("agreed", "declared"));
      await agent.command("create-endpoint /dev/rpmsg_ctrl0 agreed 0x30 2000");
      await agent.command(`open none /dev/${await nodeNamed("agreed")}`);
      const client = await running.connect("/ws/v1/vm/agreed");
      client.send("early");
      await agent.write("none", "hello");
      expect(await client.text()).toBe("hello");
      expect((await agent.read("none")).toString()).toBe("early");
      expect((await listed())["agreed"]).toEqual(["agreed", "host", "none", 2000, 0x30, "connected"]);
      await talk(client, "none", "none");
      await agent.command("destroy-endpoint none");
      await agent.command("close none");
      expect(await bus()).toEqual(before);
      held.push(client);
    });

    test("none, the peer agreed on: a client speaks first", async () => {
      await agent.command("create-endpoint /dev/rpmsg_ctrl0 fixed 0x31 2001");
      // The endpoint is there while the device is open.
      await agent.command(`open none /dev/${await nodeNamed("fixed")}`);
      const client = await running.connect("/ws/v1/vm/fixed");
      await talk(client, "none", "fixed");
      await agent.command("destroy-endpoint none");
      await agent.command("close none");
      await client.close();
    });

    test("up: declared, connected when the guest announces it, and declared again when it withdraws it", async () => {
      const declared = await at("rpmsg-tty@96", "declared");
      await expectNoPeer(declared);
      const client = await running.connect("/ws/v1/vm/rpmsg-tty@96");
      await agent.command("create-device /dev/rpmsg_ctrl0 rpmsg-tty 0x60 2002");
      expect(await at("rpmsg-tty@96", "connected")).toMatchObject({
        id: declared.id,
        peer: 0x60,
        generation,
      });
      await agent.command(`open up /dev/${await nodeOf("rpmsg-tty.96.2002", "tty")}`);
      await talk(client, "up", "up");
      await agent.command("close up");
      await agent.command("release-device /dev/rpmsg_ctrl0 rpmsg-tty 0x60 2002");
      expect((await client.closed).code).toBe(4002);
      await at("rpmsg-tty@96", "declared");
      await agent.command("create-device /dev/rpmsg_ctrl0 rpmsg-tty 0x60 2002");
      await at("rpmsg-tty@96", "connected");
      const next = await running.connect("/ws/v1/vm/rpmsg-tty@96");
      await agent.command(`open up /dev/${await nodeOf("rpmsg-tty.96.2002", "tty")}`);
      await talk(next, "up", "up again");
      await agent.command("close up");
      held.push(next);
    });

    test("up, undeclared: an endpoint of the guest; without a destination its device hears and cannot answer", async () => {
      await agent.command("create-device /dev/rpmsg_ctrl0 rpmsg-tty 0x61 any");
      await at("rpmsg-tty@97", "connected");
      expect((await listed())["rpmsg-tty@97"]).toEqual(["rpmsg-tty", "guest", "up", 0x61, 0x61, "connected"]);
      const client = await running.connect("/ws/v1/vm/rpmsg-tty@97");
      await agent.command(`open up /dev/${await nodeOf("rpmsg-tty.97.-1", "tty")}`);
      client.send("hello");
      expect((await agent.read("up")).toString()).toBe("hello");
      await agent.command("close up");
      held.push(client);
    });

    test("both, the same name: two devices of the guest behind one route, the one that spoke last is its peer", async () => {
      const announced = await at("rpmsg-raw@1042", "announced");
      await agent.command("create-device /dev/rpmsg_ctrl0 rpmsg-raw 0x78 1042");
      expect(await at("rpmsg-raw@1042", "connected")).toMatchObject({
        id: announced.id,
        peer: 0x78,
        ns: "both",
      });
      expect((await bus()).filter((each) => each.endsWith(".1042"))).toEqual([
        ...["rpmsg-raw.-1.1042", "rpmsg-raw.120.1042"],
      ]);
      const client = await running.connect("/ws/v1/vm/rpmsg-raw@1042");
      await agent.command(`open own /dev/${await nodeOf("rpmsg-raw.120.1042", "rpmsg")}`);
      await talk(client, "own", "both");
      // The one that our announcement made.
      const node = await nodeOf("rpmsg-raw.-1.1042", "rpmsg");
      await agent.command(`open made /dev/${node}`);
      await agent.write("made", "me too");
      expect(await client.text()).toBe("me too");
      expect((await at("rpmsg-raw@1042", "connected")).peer).toBe(await sourceOf(node));
      await talk(client, "made", "made");
      await agent.write("own", "me again");
      expect(await client.text()).toBe("me again");
      await talk(client, "own", "own");
      // A second one of that name is no half of anything.
      await agent.command("create-device /dev/rpmsg_ctrl0 rpmsg-raw 0x79 2003");
      await at("rpmsg-raw@121", "connected");
      const other = await running.connect("/ws/v1/vm/rpmsg-raw@121?local=2003");
      await agent.command(`open other /dev/${await nodeOf("rpmsg-raw.121.2003", "rpmsg")}`);
      await talk(other, "other", "another");
      await agent.command("release-device /dev/rpmsg_ctrl0 rpmsg-raw 0x79 2003");
      expect((await other.closed).code).toBe(4002);
      for (const handle of ["own", "made", "other"]) await agent.command(`close ${handle}`);
      held.push(client);
    });

    test("both, different names: what each side announces is an endpoint of its own", async () => {
      const { "rpmsg-raw": down, "rpmsg-tty@97": up, ...rest } = await listed();
      expect(down?.slice(0, 4)).toEqual(["rpmsg-raw", "host", "down", 1040]);
      expect(up?.slice(0, 4)).toEqual(["rpmsg-tty", "guest", "up", 0x61]);
      expect(Object.keys(rest).toSorted()).toEqual([
        ...["agreed", "fixed", "rpmsg-raw@1042", "rpmsg-tty", "rpmsg-tty@96"],
      ]);
      expect(held).toHaveLength(6);
    });
  });
});
