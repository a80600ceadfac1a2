import { describe, expect, test } from "vitest";
import type { Client } from "./support.ts";
import { testBridge } from "./support.ts";

const hostService = {
  guests: { demo: { kind: "emulated" as const, endpoints: [{ name: "rpmsg-raw", address: 1040 }] } },
};

/** Everything that was on its way to these clients has come: an answer to the last message of each. */
async function settled(...clients: Client[]): Promise<void> {
  for (const client of clients) {
    client.send("the last");
    while ((await client.text()) !== "the last");
  }
}

describe("private clients", () => {
  test("each gets the replies to what it sent, and nothing else", async () => {
    const { connect } = await testBridge();
    const clients = await Promise.all([1, 2, 3, 4].map(() => connect("/ws/v1/demo/echo")));
    for (let round = 0; round < 50; round++) {
      for (const [i, client] of clients.entries()) client.send(`${i}: ${round}`);
    }
    for (const [i, client] of clients.entries()) {
      const texts = (await client.take(50)).map(String);
      expect(texts).toEqual(Array.from({ length: 50 }, (_, round) => `${i}: ${round}`));
    }
    await settled(...clients);
    for (const client of clients) expect(client.received).toBe(0);
  });

  test("on a service of the host, a private client hears what comes to its own address only", async () => {
    const { connect, endpoint } = await testBridge(hostService);
    await endpoint("rpmsg-raw", (each) => each.state === "connected");
    const shared = await connect("/ws/v1/demo/rpmsg-raw");
    const own = await connect("/ws/v1/demo/rpmsg-raw?share=private");
    own.send("mine");
    expect(await own.text()).toBe("mine");
    shared.send("for all");
    expect(await shared.text()).toBe("for all");
    await settled(own, shared);
    expect([own.received, shared.received]).toEqual([0, 0]);
  });
});

describe("shared clients", () => {
  test("of one endpoint of the guest all see every reply, in the same order", async () => {
    const { connect } = await testBridge();
    const path = "/ws/v1/demo/echo?share=shared";
    const [first, second] = [await connect(path), await connect(path)];
    const other = await connect("/ws/v1/demo/echo");
    first.send("one");
    second.send("two");
    const heard = (await first.take(2)).map(String);
    expect(heard.toSorted()).toEqual(["one", "two"]);
    expect((await second.take(2)).map(String)).toEqual(heard);
    await settled(other);
    expect(other.received).toBe(0);
  });

  test("that come when all others have left share a new address", async () => {
    const { connect } = await testBridge();
    for (let round = 0; round < 3; round++) {
      const client = await connect("/ws/v1/demo/echo?share=shared");
      client.send(`round ${round}`);
      expect(await client.text()).toBe(`round ${round}`);
      await client.close();
    }
  });

  test("of different endpoints share nothing", async () => {
    const { connect } = await testBridge();
    const echo = await connect("/ws/v1/demo/echo?share=shared");
    const sink = await connect("/ws/v1/demo/sink?share=shared");
    echo.send("one");
    sink.send("stat");
    expect(await sink.text()).toContain("messages");
    expect(await echo.text()).toBe("one");
    await settled(echo);
    expect([echo.received, sink.received]).toEqual([0, 0]);
  });

  test("are the default for a service of the host, and one that comes later hears what follows", async () => {
    const { connect, endpoint } = await testBridge(hostService);
    await endpoint("rpmsg-raw", (each) => each.state === "connected");
    const first = await connect("/ws/v1/demo/rpmsg-raw");
    first.send("one");
    expect(await first.text()).toBe("one");
    const second = await connect("/ws/v1/demo/rpmsg-raw");
    second.send("two");
    expect(await second.text()).toBe("two");
    expect(await first.text()).toBe("two");
    await first.close();
    second.send("three");
    expect(await second.text()).toBe("three");
    expect((await endpoint("rpmsg-raw")).counters).toMatchObject({
      messagesToGuest: 3,
      // The guest introduced itself with an empty message, which nobody was there to take.
      messagesFromGuest: 4,
      noClient: 1,
    });
  });
});

describe("local=", () => {
  test.each([
    ["private", "2000", "2000"],
    ["private", "0x7D0", "2000"],
    ["shared", "7", "0x7"],
    ["private", "70000", "70000"],
    ["private", "0xfffffffe", "4294967294"],
  ])("binds a %s channel to %s, and a second private one is refused with 409", async (share, local, same) => {
    const { connect, refusal } = await testBridge();
    const client = await connect(`/ws/v1/demo/echo?share=${share}&local=${local}`);
    client.send("hello");
    expect(await client.text()).toBe("hello");
    const taken = { status: 409, code: "local-in-use" };
    expect(await refusal(`/ws/v1/demo/echo?local=${same}`)).toMatchObject(taken);
    expect(await refusal(`/ws/v1/demo/sink?share=private&local=${same}`)).toMatchObject(taken);
    await client.close();
    const next = await connect(`/ws/v1/demo/echo?local=${same}`);
    next.send("again");
    expect(await next.text()).toBe("again");
  });

  test("with share=shared joins who has the address shared, and not who has it alone", async () => {
    const { connect, refusal } = await testBridge();
    const path = "/ws/v1/demo/echo?share=shared&local=2000";
    const [first, second] = [await connect(path), await connect(path)];
    first.send("one");
    expect(await second.text()).toBe("one");
    expect(await first.text()).toBe("one");
    // The address stays as long as one of them does.
    await first.close();
    expect(await refusal("/ws/v1/demo/echo?local=2000")).toMatchObject({ status: 409 });
    second.send("two");
    expect(await second.text()).toBe("two");
    const alone = await connect("/ws/v1/demo/echo?local=3000");
    expect(await refusal("/ws/v1/demo/echo?share=shared&local=3000")).toMatchObject({ status: 409 });
    alone.send("still mine");
    expect(await alone.text()).toBe("still mine");
  });

  test.each([
    ["the name service", 53],
    ["a service of the host", 1040],
  ])("the address of %s is taken", async (_what, address) => {
    const { refusal } = await testBridge(hostService);
    expect(await refusal(`/ws/v1/demo/rpmsg-raw?share=private&local=${address}`)).toMatchObject({
      status: 409,
      code: "local-in-use",
    });
  });

  test("a channel of one guest does not take the address of another guest's", async () => {
    const { connect } = await testBridge({ guests: { a: { kind: "emulated" }, b: { kind: "emulated" } } });
    const clients = [await connect("/ws/v1/a/echo?local=2000"), await connect("/ws/v1/b/echo?local=2000")];
    for (const [i, client] of clients.entries()) client.send(`to ${i}`);
    for (const [i, client] of clients.entries()) expect(await client.text()).toBe(`to ${i}`);
  });
});

test("the readings of a sensor that nobody listens to any more never reach the next client", async () => {
  const { connect, guest } = await testBridge();
  const first = await connect("/ws/v1/demo/sensor");
  first.send("start 1000");
  await first.next();
  await first.close();
  const before = (await guest("demo")).counters.unknownAddress;
  const next = await connect("/ws/v1/demo/sensor");
  const echo = await connect("/ws/v1/demo/echo");
  // The sensor goes on talking to the first one's address.
  while ((await guest("demo")).counters.unknownAddress < before + 20) {
    echo.send("time passes");
    await echo.next();
  }
  expect(next.received).toBe(0);
  next.send("what?");
  expect(await next.text()).toContain("error");
});
