import { describe, expect, test } from "vitest";
import type { ProfileName } from "../../guest/profiles.ts";
import type { ServiceOptions } from "../../guest/service.ts";
import type { Endpoint, NameServiceMode } from "../../schemas/index.ts";
import { closeCode } from "../../schemas/index.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import type { Declaration, Row } from "./name-service-guest.ts";
import { AGREED, Answering, call, DEAF, guestBridge, HOST, listed } from "./name-service-guest.ts";
import type { Client } from "./support.ts";
import { eventually } from "./support.ts";

/** A cell of the matrix: what the list shows, and where one can talk. */
interface Cell {
  readonly host: Declaration;
  readonly guest: Record<string, ServiceOptions>;
  /** While no guest is there. */
  readonly waiting: readonly Row[];
  /** The guest is attached, and has worked on nothing yet. */
  readonly attached: readonly Row[];
  /** It has, and has spoken. */
  readonly spoken: readonly Row[];
  /** Paths, and which address of the guest answers there; null: nobody. */
  readonly answers: Readonly<Record<string, number | null>>;
  /** What the guest hears of name service in each generation. */
  readonly heard: readonly string[];
}

/**
 * @param own the guest's first address
 * @param bound the address of its endpoint that answers where both sides have announced one name
 */
function cellOf(
  ns: NameServiceMode,
  same: boolean,
  own: number,
  bound: number,
  { factory }: Answering,
): Cell {
  const name = same ? "svc" : "host-svc";
  const other = same ? "svc" : "guest-svc";
  const path = `/ws/v1/vm/${name}`;
  const otherPath = `/ws/v1/vm/${other}`;
  const guests: Row = [other, "guest", "up", own, own, "connected", otherPath];
  const host = (peer: number | null, state: Endpoint["state"]): Row[] => [
    [name, "host", ns, HOST, peer, state, path],
  ];
  const up = (peer: number | null, state: Endpoint["state"]): Row[] => [
    [name, "guest", "up", peer, peer, state, path],
  ];
  switch (ns) {
    case "none":
      // Names do not matter.
      return {
        host: { name, ns, address: HOST },
        guest: { [other]: { service: factory, ns, address: AGREED } },
        waiting: host(null, "declared"),
        attached: host(null, "declared"),
        spoken: host(AGREED, "connected"),
        answers: { [path]: AGREED },
        heard: [],
      };
    case "down":
      return {
        host: { name, ns, address: HOST },
        guest: { [other]: { service: factory, ns } },
        waiting: host(null, "declared"),
        attached: host(null, "announced"),
        spoken: same ? host(own, "connected") : host(null, "announced"),
        answers: { [path]: same ? own : null },
        heard: [`+${name}@${HOST}`],
      };
    case "up":
      return {
        host: { name, ns },
        guest: { [other]: { service: factory, ns } },
        waiting: up(null, "declared"),
        attached: same ? up(own, "connected") : [...up(null, "declared"), guests],
        spoken: same ? up(own, "connected") : [...up(null, "declared"), guests],
        answers: same ? { [path]: own } : { [path]: null, [otherPath]: own },
        heard: [],
      };
    case "both":
      return {
        host: { name, ns, address: HOST },
        guest: { [other]: { service: factory, ns } },
        waiting: host(null, "declared"),
        // One route, which shows the half that the guest announced as its peer.
        attached: same ? host(own, "connected") : [...host(null, "announced"), guests],
        spoken: same ? host(bound, "connected") : [...host(null, "announced"), guests],
        answers: same ? { [path]: bound } : { [path]: null, [otherPath]: own },
        heard: [`+${name}@${HOST}`],
      };
  }
}

const MODES: readonly NameServiceMode[] = ["none", "down", "up", "both"];

/**
 * The first address of each, and which one answers where both sides announced one name: open-amp binds the endpoint
 * that there is; Linux makes a second device, and an application of rpmsg-lite a second endpoint.
 */
const PROFILES: readonly [ProfileName, own: number, bound: number][] = [
  ["linux", 1024, 1025],
  ["openamp", 1024, 1024],
  ["rpmsg-lite", 1, 2],
];

const CELLS = PROFILES.flatMap(([profile, own, bound]) =>
  MODES.flatMap((ns) =>
    [true, false].flatMap((same) =>
      (["no", "reboot", "gone"] as const).map((reset) => ({
        ...{ profile, own, bound, ns, same, reset },
        title: [
          `${ns}, ${profile}, ${same ? "the same name" : "different names"}`,
          { no: "", reboot: ", across a reboot", gone: ", across the end of the connection" }[reset],
        ].join(""),
      })),
    ),
  ),
);

describe.skipIf(unsupported !== undefined)(titled("name service"), () => {
  test.each(CELLS)("$title", async ({ profile, own, bound, ns, same, reset }) => {
    const answering = new Answering();
    const cell = cellOf(ns, same, own, bound, answering);
    const { running, guest, attach } = await guestBridge([cell.host], { profile, services: cell.guest });
    const declared = async () => (await running.endpoints())[0] as Endpoint;
    const expectNoPeer = async () => {
      const path = `/${(await declared()).id}/messages`;
      const { status, body } = await call(running, "POST", path, { data: "anybody?", timeout: 20 });
      expect({ status, code: body.code }).toEqual({ status: 409, code: "no-peer" });
    };
    const declaredPath = cell.waiting[0]?.[6] ?? "";

    /** All that is seen of one attachment. Ends with a client of each endpoint that answers. */
    const generation = async (number: number, early?: Client): Promise<Client[]> => {
      await listed(running, number, cell.attached);
      const clients: Client[] = [];
      if (cell.attached[0]?.[4] === null) {
        await expectNoPeer();
      }
      guest.faults.delay = 0;
      // By itself it does not know of us.
      if (ns === "none") answering.contexts.at(-1)?.send(HOST, Buffer.from("hello"));
      await listed(running, number, cell.spoken);
      if (early !== undefined) {
        await eventually("the early message", async () =>
          (await early.text()) === `${cell.answers[declaredPath]}: early` ? true : undefined,
        );
      }
      for (const [path, address] of Object.entries(cell.answers)) {
        const client = await running.connect(path);
        if (address === null) {
          await expectNoPeer();
          await client.close();
          continue;
        }
        client.send(`over ${path}`);
        expect(await client.text()).toBe(`${address}: over ${path}`);
        const message = guest.messages.find(({ text }) => text === `over ${path}`);
        expect(message?.dst).toBe(address);
        // A service of the host speaks from its address; a client of the guest's endpoint has one of its own.
        if (ns === "none" || ns === "down" || (ns === "both" && same)) expect(message?.src).toBe(HOST);
        else expect(message?.src).toBeGreaterThanOrEqual(1024);
        clients.push(client);
      }
      await listed(running, number, cell.spoken);
      expect(guest.nameService).toEqual(cell.heard);
      const { counters } = await running.guest("vm");
      expect(counters).toMatchObject({ nameServiceIgnored: 0, nameServiceMalformed: 0, unknownAddress: 0 });
      return clients;
    };

    await listed(running, 1, cell.waiting);
    const { id } = await declared();
    guest.faults.delay = DEAF;
    const { vm, closed } = await attach();
    const clients = await generation(1);
    if (reset === "no") return;

    guest.faults.delay = DEAF;
    let early: Client | undefined;
    if (reset === "reboot") {
      await vm.reboot();
    } else {
      vm.close();
      await closed;
      await listed(running, 2, cell.waiting);
      // Who is early waits for the guest, whatever it takes.
      if (typeof cell.answers[declaredPath] === "number" && ns !== "both") {
        early = await running.connect(declaredPath);
        early.send("early");
      }
      await attach();
    }
    for (const client of clients) expect((await client.closed).code).toBe(closeCode.guestReset);
    await generation(2, early);
    expect((await declared()).id).toBe(id);
  });
});
