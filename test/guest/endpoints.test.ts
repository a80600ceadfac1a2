import { describe, expect, test } from "vitest";
import type { ServiceEndpoint } from "../../guest/define-service.ts";
import { service } from "../../guest/define-service.ts";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { ProfileName } from "../../guest/profiles.ts";
import type { ServiceNs, ServiceOptions } from "../../guest/service.ts";
import { echo } from "../../guest/services/echo.ts";
import { tty } from "../../guest/services/tty.ts";
import type { Client } from "./support.ts";
import { boot, turns, until } from "./support.ts";

const PROFILES: ProfileName[] = ["linux", "openamp", "rpmsg-lite"];

/** A service that says where it is. */
const where = service(
  ({ name, address }) =>
    ({ reply }) =>
      reply(`${name} ${address}`),
);

async function answers(client: Client): Promise<boolean> {
  client.send("?");
  await turns(10);
  return client.texts.some((text) => text !== "");
}

describe.each(PROFILES)("ns, %s", (profile) => {
  test.each<{ ns: ServiceNs; announced: string[]; atAddress: boolean; forHost: boolean }>([
    { ns: "none", announced: [], atAddress: true, forHost: profile === "openamp" },
    { ns: "down", announced: [], atAddress: false, forHost: true },
    // open-amp binds the endpoint of the name, whoever announced it.
    { ns: "up", announced: ["it"], atAddress: true, forHost: profile === "openamp" },
    { ns: "both", announced: ["it"], atAddress: true, forHost: true },
  ])("$ns", async ({ ns, announced, atAddress, forHost }) => {
    const it: ServiceOptions = ns === "down" ? { service: where, ns } : { service: where, ns, address: 2000 };
    const { host, errors } = await boot({ profile, services: { it } }, announced.length);
    await turns();
    expect(host.announced.map(({ name }) => name)).toEqual(announced);
    expect(await answers(host.open({ peer: profile === "rpmsg-lite" ? 1 : 1024 }))).toBe(false);
    const client = host.open({ address: 0x500 });
    host.device.announce("it", 0x500);
    client.send("?");
    await turns(10);
    expect(client.texts.some((text) => text.startsWith("it "))).toBe(forHost);
    expect(await answers(host.open({ peer: 2000 }))).toBe(atAddress);
    expect(errors).toEqual([]);
  });
});

describe("addresses", () => {
  test("agreed ones go first; the others are the lowest that are free", async () => {
    const { host } = await boot(
      {
        services: {
          a: where,
          b: { service: where, address: 1024 },
          c: where,
          d: { service: where, address: 7 },
        },
      },
      4,
    );
    expect(Object.fromEntries(host.announced.map(({ name, address }) => [name, address]))).toEqual({
      ...{ a: 1025, b: 1024, c: 1026, d: 7 },
    });
  });

  test("any but the name service's, each once", () => {
    const make = (...addresses: number[]) =>
      new EmulatedGuest({
        services: Object.fromEntries(addresses.map((address, i) => [`s${i}`, { service: echo, address }])),
      });
    for (const address of [0, 1, 0xffff_fffe]) expect(make(address)).toBeInstanceOf(EmulatedGuest);
    for (const address of [53, -1, 0xffff_ffff, 1.5, Number.NaN])
      expect(() => make(address)).toThrow(RangeError);
    expect(() => make(7, 8, 7)).toThrow("two services have the address 7");
  });

  test("with ns down the guest chooses", () => {
    const services = { it: { service: echo, ns: "down" as const, address: 7 } };
    expect(() => new EmulatedGuest({ services })).toThrow("with ns down the guest chooses the address");
  });

  test("more services than addresses: what has none is reported", async () => {
    const services = Object.fromEntries(Array.from({ length: 130 }, (_, i) => [`s${i}`, echo]));
    const { host, errors } = await boot({ profile: "openamp", services }, 128);
    await turns();
    expect(host.announced).toHaveLength(128);
    expect(errors).toEqual([
      "failed: service s128: all addresses of the guest are in use",
      "failed: service s129: all addresses of the guest are in use",
    ]);
  });
});

describe("names", () => {
  test("of any UTF-8 text arrive as its bytes, and are known for the host's announcement, too", async () => {
    const { host } = await boot({ services: { grün: where }, otherService: () => undefined }, 1);
    const raw = Buffer.from("grün").toString("latin1");
    expect(host.announced.map(({ name }) => name)).toEqual([raw]);
    const client = host.open({ address: 0x500 });
    host.device.announce(raw, 0x500);
    client.send("?");
    await until(() => client.texts.includes("grün 1025"));
  });

  test.each(["", "x".repeat(32), "ü".repeat(16), "a\0b"])("%j is none", (name) => {
    expect(() => new EmulatedGuest({ services: { [name]: echo } })).toThrow("a name has 1 to 31 bytes");
  });

  test("the longest", async () => {
    const { host } = await boot({ services: { ["x".repeat(31)]: echo } }, 1);
    expect(host.announced[0]?.name).toBe("x".repeat(31));
  });

  test("what is no service is refused", () => {
    const services = { odd: {} as never };
    expect(() => new EmulatedGuest({ services })).toThrow('service "odd": want a function that makes it');
  });
});

describe("what the host announces and the guest does not know", () => {
  test.each([
    { name: "greeter", answer: "whoami\r" },
    { name: "rpmsg-tty", answer: "whoami\r\nendpoint 1024\r\ndemo# " },
  ])("$name: an echo, or a shell behind the name of a tty", async ({ name, answer }) => {
    const { host } = await boot({ services: {} }, 0);
    const client = host.open({ address: 0x500 });
    host.device.announce(name, 0x500);
    client.send("whoami\r");
    await until(() => client.got.length === 2);
    expect(client.texts).toEqual(["", answer]);
  });

  test("is what the guest says, or nobody", async () => {
    const asked: string[] = [];
    const otherService = (name: string) => {
      asked.push(name);
      return name === "known" ? where : undefined;
    };
    const { host, errors } = await boot({ services: { tty }, otherService }, 1);
    const [known, unknown] = [host.open({ address: 0x500 }), host.open({ address: 0x501 })];
    host.device.announce("known", 0x500);
    host.device.announce("unknown", 0x501);
    known.send("?");
    await until(() => known.texts.includes("known 1025"));
    expect(asked).toEqual(["known", "unknown"]);
    expect(unknown.got).toEqual([]);
    expect(errors).toEqual([]);
  });
});

describe("at run time", () => {
  test("a service is announced and withdrawn; the next boot forgets both", async () => {
    const { host, guest, link } = await boot({ services: { first: where } }, 1);
    guest.announce("late", where);
    guest.announce("fixed", where, 40);
    await until(() => host.announced.length === 3);
    expect([host.addressOf("late"), host.addressOf("fixed")]).toEqual([1025, 40]);
    const client = host.open({ peer: 40 });
    expect(await answers(client)).toBe(true);
    expect(guest.withdraw("first")).toBe(true);
    expect(guest.withdraw("fixed")).toBe(true);
    expect(guest.withdraw("nobody")).toBe(false);
    await until(() => host.withdrawn.length === 2);
    expect(host.withdrawn.map(({ name }) => name)).toEqual(["first", "fixed"]);
    expect(await answers(host.open({ peer: 40 }))).toBe(false);
    link.reboot();
    await until(() => host.announced.length === 4);
    expect([...host.device.guestAnnouncements].map(({ name }) => name)).toEqual(["first"]);
  });

  test("what cannot be announced throws, and changes nothing", async () => {
    const { host, guest } = await boot({ services: { first: where } }, 1);
    expect(() => guest.announce("twin", where, 1024)).toThrow("address 1024 is in use");
    expect(() => guest.announce("", where)).toThrow(RangeError);
    const broken = service(() => {
      throw new Error("no sensor");
    });
    expect(() => guest.announce("broken", broken)).toThrow("no sensor");
    await turns();
    expect(host.announced).toHaveLength(1);
  });

  test("a service whose address was agreed on goes without a withdrawal", async () => {
    const { host, guest } = await boot({ services: { it: { service: where, ns: "none", address: 40 } } }, 0);
    expect(guest.withdraw("it")).toBe(true);
    await turns();
    expect(host.device.counters).toMatchObject({ nameServiceIgnored: 0, messagesFromGuest: 0 });
    expect(await answers(host.open({ peer: 40 }))).toBe(false);
  });

  test("a service may end itself from within a message", async () => {
    const held: { guest?: EmulatedGuest } = {};
    const booted = await boot(
      {
        services: {
          once: service(() => ({ reply }) => {
            reply("bye");
            held.guest?.withdraw("once");
            expect(reply("not this")).toBe(false);
          }),
          echo,
        },
      },
      2,
    );
    held.guest = booted.guest;
    const client = booted.host.open({ peer: booted.host.addressOf("once") });
    client.send("?");
    await until(() => booted.host.withdrawn.length === 1);
    expect(client.texts).toEqual(["bye"]);
    expect(booted.errors).toHaveLength(1);
  });

  test("a guest that does not run has none", () => {
    const guest = new EmulatedGuest();
    expect(() => guest.announce("late", echo)).toThrow("the guest does not run");
    expect(() => guest.withdraw("echo")).toThrow("the guest does not run");
  });
});

test("reboot, pause and resume of the guest itself, one after another, while it is attached", async () => {
  const endpoints: ServiceEndpoint[] = [];
  const { host, guest, link } = await boot(
    { services: { it: service((endpoint) => void endpoints.push(endpoint)) } },
    1,
  );
  await Promise.all([guest.pause(), guest.resume(), guest.reboot(), guest.pause(), guest.reboot()]);
  await until(() => host.announced.length === 3);
  expect(endpoints).toHaveLength(3);
  expect(host.device.generation).toBe(3);
  link.close();
  expect(guest.inUse).toBe(false);
  for (const operation of ["reboot", "pause", "resume"] as const) {
    await expect(guest[operation]()).rejects.toThrow("the guest is not attached");
  }
});
