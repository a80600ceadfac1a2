import { afterEach, describe, expect, test, vi } from "vitest";
import type { ServiceEndpoint, ServiceMessage } from "../../guest/define-service.ts";
import { service } from "../../guest/define-service.ts";
import type { EmulatedGuestOptions } from "../../guest/emulated-guest.ts";
import { echo } from "../../guest/services/echo.ts";
import { boot, turns, until } from "./support.ts";

afterEach(() => {
  vi.useRealTimers();
});

/** A guest with the service `probe`, which keeps its endpoints and messages and answers what `answer` says. */
async function probing(
  answer: (message: ServiceMessage, endpoint: ServiceEndpoint) => unknown = () => {},
  options: EmulatedGuestOptions = {},
) {
  const endpoints: ServiceEndpoint[] = [];
  const messages: ServiceMessage[] = [];
  const probe = service((endpoint) => {
    endpoints.push(endpoint);
    return (message) => {
      messages.push(message);
      return answer(message, endpoint);
    };
  });
  const booted = await boot({ services: { probe, echo }, ...options }, 2);
  const client = booted.host.open({ peer: booted.host.addressOf("probe") });
  return { ...booted, client, endpoints, messages };
}

describe("messages", () => {
  test("have a source, bytes and text, and are the service's own", async () => {
    const { client, messages } = await probing();
    client.send("grüß");
    client.send(Uint8Array.of(1, 0, 255));
    client.send("");
    await turns();
    expect(messages.map(({ src, text }) => [src, text])).toEqual([
      [client.endpoint.address, "grüß"],
      [client.endpoint.address, "\u0001\0\uFFFD"],
      [client.endpoint.address, ""],
    ]);
    // Beyond every use of the guest's buffers again.
    for (let i = 0; i < 300; i++) client.send("something else");
    await turns();
    expect([...(messages[1]?.bytes ?? [])]).toEqual([1, 0, 255]);
  });

  test("are answered any number of times, as text or bytes, and later", async () => {
    const { client, messages } = await probing(({ reply }) => {
      reply("one");
      reply(Uint8Array.of(116, 119, 111));
      reply("");
    });
    client.send("?");
    await until(() => client.got.length === 3);
    expect(messages[0]?.reply("later")).toBe(true);
    await until(() => client.got.length === 4);
    expect(client.texts).toEqual(["one", "two", "", "later"]);
  });

  test("a reply goes to the sender, `send` to any address", async () => {
    const { host, client, endpoints, messages } = await probing();
    const other = host.open({ peer: host.addressOf("probe") });
    client.send("a");
    other.send("b");
    await until(() => messages.length === 2);
    for (const { text, reply } of messages) reply(`to ${text}`);
    endpoints[0]?.send("unasked", other.endpoint.address);
    await turns();
    expect(client.texts).toEqual(["to a"]);
    expect(other.texts).toEqual(["to b", "unasked"]);
    expect(client.got[0]?.src).toBe(host.addressOf("probe"));
  });

  test("what is sent may be changed afterwards, also while it waits", async () => {
    const { host, client, endpoints } = await probing(undefined, { profile: "rpmsg-lite" });
    host.device.hold();
    const bytes = Buffer.alloc(1);
    for (let i = 0; i < 20; i++) {
      bytes[0] = i;
      endpoints[0]?.send(bytes, client.endpoint.address);
    }
    host.device.release();
    await until(() => client.got.length === 20);
    expect(client.got.map((message) => message.bytes[0])).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  test("a service without a function for messages only talks", async () => {
    let speak: () => void = () => {};
    const talker = service(({ send }) => {
      speak = () => send("hello", 0x500);
    });
    const { host, errors } = await boot({ services: { talker } }, 1);
    const client = host.open({ address: 0x500, peer: host.addressOf("talker") });
    client.send("nobody listens");
    speak();
    await until(() => client.got.length === 1);
    await turns();
    expect(client.texts).toEqual(["hello"]);
    expect(errors).toEqual([]);
  });
});

describe("the endpoint", () => {
  test("says who it is", async () => {
    const { host, endpoints } = await probing(undefined, { profile: "openamp" });
    expect(endpoints[0]).toMatchObject({
      ...{ name: "probe", address: host.addressOf("probe"), mtu: 496, profile: "openamp", peer: undefined },
    });
  });

  test("of a host's announcement: its peer is the host's service, and messages go there", async () => {
    const { host, endpoints } = await probing();
    const client = host.open({ address: 0x500 });
    host.device.announce("probe", 0x500);
    await until(() => endpoints.length === 2);
    expect(endpoints[1]?.peer).toBe(0x500);
    expect(endpoints[1]?.send("hello host")).toBe(true);
    await until(() => client.texts.includes("hello host"));
  });

  test("its peer may become known later: open-amp takes the first sender", async () => {
    const { client, endpoints } = await probing(undefined, { profile: "openamp" });
    expect(() => endpoints[0]?.send("too early")).toThrow("the peer is not known yet");
    client.send("here I am");
    await turns();
    expect(endpoints[0]?.peer).toBe(client.endpoint.address);
    endpoints[0]?.send("now");
    await until(() => client.got.length === 1);
    expect(client.texts).toEqual(["now"]);
  });

  test.each([-1, 1.5, 0xffff_ffff, Number.NaN])("%s is no address to send to", async (address) => {
    const { endpoints } = await probing();
    expect(() => endpoints[0]?.send("x", address)).toThrow(RangeError);
  });

  test.each([
    { profile: "linux" as const, waiting: false },
    { profile: "linux" as const, waiting: true },
    { profile: "openamp" as const, waiting: false },
    { profile: "openamp" as const, waiting: true },
  ])("a message that is too long: $profile, output waiting: $waiting", async ({ profile, waiting }) => {
    const { host, client, endpoints } = await probing(undefined, { profile });
    const send = endpoints[0]?.send as ServiceEndpoint["send"];
    host.device.hold();
    const before = waiting ? 300 : 0;
    for (let i = 0; i < before; i++) send("x", client.endpoint.address);
    if (profile === "linux") {
      expect(() => send("y".repeat(497), client.endpoint.address)).toThrow(
        "a message of 497 bytes is too long",
      );
    } else {
      expect(send("y".repeat(497), client.endpoint.address)).toBe(true);
    }
    send("z".repeat(496), client.endpoint.address);
    host.device.release();
    const cut = profile === "linux" ? [] : [496];
    await until(() => client.got.length === before + cut.length + 1);
    expect(client.got.slice(before).map(({ bytes }) => bytes.length)).toEqual([...cut, 496]);
  });
});

describe("output that finds no buffer", () => {
  test("waits and arrives in order", async () => {
    const { host, client, endpoints, errors } = await probing(undefined, { profile: "rpmsg-lite" });
    host.device.hold();
    for (let i = 0; i < 1000; i++) expect(endpoints[0]?.send(`${i}`, client.endpoint.address)).toBe(true);
    await turns();
    expect(client.got).toEqual([]);
    host.device.release();
    await until(() => client.got.length === 1000);
    expect(client.texts).toEqual(Array.from({ length: 1000 }, (_, i) => `${i}`));
    expect(errors).toEqual([]);
  });

  test("beyond the bound is dropped and reported, message for message", async () => {
    const { host, client, endpoints, errors } = await probing(undefined, { profile: "rpmsg-lite" });
    host.device.hold();
    let dropped = 0;
    for (let i = 0; i < 1000; i++) {
      if (endpoints[0]?.send(`${i}`.padEnd(496), client.endpoint.address) === false) dropped++;
    }
    host.device.release();
    await until(() => client.got.length === 1000 - dropped);
    await turns();
    // 64 KiB, and what is in the guest's eight buffers.
    expect(client.texts.map(Number)).toEqual(Array.from({ length: 8 + 129 }, (_, i) => i));
    expect(errors).toHaveLength(dropped);
    expect(new Set(errors)).toEqual(
      new Set(["output-full: service probe: too much waits for buffers, a message was dropped"]),
    );
    // And there is room again.
    expect(endpoints[0]?.send("again", client.endpoint.address)).toBe(true);
    await until(() => client.texts.at(-1) === "again");
  });

  test("holds up the messages to it: a reply to each is never too much", async () => {
    const { host, client, messages, errors } = await probing(({ text, reply }) => reply(text.padEnd(496)), {
      profile: "rpmsg-lite",
    });
    host.device.hold();
    for (let i = 0; i < 500; i++) client.send(`${i}`);
    await turns(20);
    expect(messages.length).toBeLessThan(20);
    host.device.release();
    await until(() => client.got.length === 500);
    expect(client.texts.map(Number)).toEqual(Array.from({ length: 500 }, (_, i) => i));
    expect(errors).toEqual([]);
  });

  test("is dropped at a reset, and reported", async () => {
    const { host, client, endpoints, errors, link } = await probing(undefined, { profile: "rpmsg-lite" });
    host.device.hold();
    for (let i = 0; i < 10; i++) endpoints[0]?.send(`${i}`, client.endpoint.address);
    link.reboot();
    host.device.release();
    expect(errors).toEqual(["ended: service probe: 2 messages that waited for a buffer were dropped"]);
  });
});

describe("code that fails is reported, and the guest goes on", () => {
  test.each([
    {
      name: "it throws",
      fail: () => {
        throw new Error("boom");
      },
    },
    { name: "its promise rejects", fail: () => Promise.reject(new Error("boom")) },
    {
      name: "it throws later",
      fail: async () => {
        await turns(1);
        throw new Error("boom");
      },
    },
  ])("a message: $name", async ({ fail }) => {
    const { client, errors } = await probing(({ text, reply }) => (text === "fail" ? fail() : reply("fine")));
    client.send("fail");
    client.send("next");
    await until(() => client.got.length === 1 && errors.length === 1);
    expect(client.texts).toEqual(["fine"]);
    expect(errors).toEqual(["failed: service probe: boom"]);
  });

  test("what is thrown need not be an error", async () => {
    const { client, errors } = await probing(() => {
      throw "just text";
    });
    client.send("x");
    await until(() => errors.length === 1);
    expect(errors).toEqual(["failed: service probe: just text"]);
  });

  test("a timer", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
    const { client, endpoints, errors } = await probing(({ reply }) => reply("fine"));
    endpoints[0]?.every(10, () => {
      throw new Error("boom");
    });
    vi.advanceTimersByTime(25);
    expect(errors).toEqual(["failed: service probe: boom", "failed: service probe: boom"]);
    client.send("x");
    await until(() => client.got.length === 1);
  });

  test("a setup: the service is not there, the others are", async () => {
    let timers = 0;
    const { host, errors } = await boot(
      {
        services: {
          broken: service(({ every }) => {
            every(1, () => timers++);
            throw new Error("no sensor");
          }),
          odd: service((() => 5) as never),
          echo,
        },
      },
      1,
    );
    expect(host.announced.map(({ name }) => name)).toEqual(["echo"]);
    expect(errors).toEqual([
      "failed: service broken: no sensor",
      "failed: service odd: its setup is to return a function that takes messages, or nothing",
    ]);
    const client = host.open({ peer: host.addressOf("echo") });
    client.send("hello");
    await until(() => client.got.length === 1);
    expect(timers).toBe(0);
  });

  test("what is told of it throws itself: the process hears of that, the guest goes on", async () => {
    const { client } = await probing(
      ({ text, reply }) => {
        if (text === "fail") throw new Error("boom");
        reply("fine");
      },
      {
        onError: ({ message }) => {
          throw new Error(`test: ${message}`);
        },
      },
    );
    const uncaught: unknown[] = [];
    const others = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    process.once("uncaughtException", (error) => uncaught.push(error.message));
    client.send("fail");
    client.send("next");
    await until(() => client.got.length === 1 && uncaught.length === 1);
    for (const each of others) process.on("uncaughtException", each);
    expect(uncaught).toEqual(["test: service probe: boom"]);
  });

  test("without anybody to tell it is a warning of the process", async () => {
    const warnings: Error[] = [];
    const keep = (warning: Error): void => {
      warnings.push(warning);
    };
    process.on("warning", keep);
    // exactOptionalPropertyTypes: a handler that is not there.
    const { client } = await probing(
      () => {
        throw new Error("boom");
      },
      { onError: undefined as never },
    );
    client.send("fail");
    await until(() => warnings.length === 1);
    process.off("warning", keep);
    expect(warnings[0]).toMatchObject({
      name: "ServiceError",
      code: "failed",
      message: "service probe: boom",
    });
  });
});

describe("timers", () => {
  test("`after` once, `every` again and again, until they are taken back", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
    const { endpoints } = await probing();
    const [endpoint] = endpoints as [ServiceEndpoint];
    const calls: string[] = [];
    endpoint.after(10, () => calls.push("after"));
    const never = endpoint.after(20, () => calls.push("never"));
    const stop = endpoint.every(10, () => calls.push("every"));
    vi.advanceTimersByTime(19);
    never();
    vi.advanceTimersByTime(15);
    stop();
    vi.advanceTimersByTime(1000);
    expect(calls).toEqual(["after", "every", "every", "every"]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each([-1, Number.NaN, 2 ** 31])("%s is no time", async (time) => {
    const { endpoints } = await probing();
    expect(() => endpoints[0]?.after(time, () => {})).toThrow(RangeError);
  });
});

describe("a reset", () => {
  test("ends timers, and sets the service up afresh", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
    const ticks: number[] = [];
    let boots = 0;
    const { host, link } = await boot(
      {
        services: {
          clock: service(({ every }) => {
            const own = ++boots;
            every(10, () => ticks.push(own));
            let count = 0;
            return ({ reply }) => reply(`${++count}`);
          }),
        },
      },
      1,
    );
    const first = host.open({ peer: host.addressOf("clock") });
    first.send("?");
    first.send("?");
    await until(() => first.got.length === 2);
    vi.advanceTimersByTime(10);
    link.reboot();
    await until(() => host.announced.length === 2);
    const second = host.open({ peer: host.addressOf("clock") });
    second.send("?");
    await until(() => second.got.length === 1);
    vi.advanceTimersByTime(10);
    expect(ticks).toEqual([1, 2]);
    expect([first.texts, second.texts]).toEqual([["1", "2"], ["1"]]);
    link.close();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("a reply to a message from before it is dropped and reported, as is all that the old endpoint does", async () => {
    const { host, client, endpoints, messages, errors, link } = await probing();
    client.send("?");
    await until(() => messages.length === 1);
    link.reboot();
    await until(() => host.announced.length === 4);
    expect(messages[0]?.reply("too late")).toBe(false);
    expect(endpoints[0]?.send("too late", client.endpoint.address)).toBe(false);
    const late = vi.fn();
    endpoints[0]?.after(0, late);
    await turns();
    expect(client.got).toEqual([]);
    expect(errors).toEqual(
      Array.from(
        { length: 2 },
        () => "ended: service probe: a message was sent after the endpoint had ended, and dropped",
      ),
    );
    // The new endpoint answers.
    expect(endpoints).toHaveLength(2);
    expect(endpoints[1]?.send("in time", client.endpoint.address)).toBe(true);
    await until(() => client.got.length === 1);
    expect(late).not.toHaveBeenCalled();
  });
});
