import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { GuestConnection } from "../../guest/guest-socket.ts";
import { attachInProcess } from "../../guest/in-process.ts";
import { openTransport, Poller, RpmsgDevice, VhostUserBackend } from "../../rpmsg/index.ts";
import { descriptorCount, titled, unsupported } from "../rpmsg/posix/support.ts";
import { Host, turns, until } from "./support.ts";

describe.skipIf(unsupported !== undefined)(titled("an emulated guest behind a socket of its own"), () => {
  let directory = "";
  let path = "";
  let before = 0;
  const closers: (() => void)[] = [];
  const warnings: Error[] = [];
  const keepWarning = (warning: Error): void => {
    warnings.push(warning);
  };

  beforeEach(() => {
    before = descriptorCount();
    directory = mkdtempSync(join(tmpdir(), "rpmsg-"));
    path = join(directory, "vm.sock");
    process.on("warning", keepWarning);
  });
  afterEach(async () => {
    for (const close of closers.splice(0)) close();
    await turns();
    rmSync(directory, { recursive: true });
    process.off("warning", keepWarning);
    expect(warnings.splice(0)).toEqual([]);
    expect(descriptorCount()).toBe(before);
  });

  /** The bridge's end of the socket. */
  function bridge(mode: "connect" | "listen", host = new Host()): { host: Host; close: () => void } {
    const poller = new Poller();
    const transport = openTransport(
      mode,
      path,
      poller,
      (fd, closed) =>
        new VhostUserBackend(fd, poller, host.device, {
          onRefused: (error) => expect.unreachable(error.message),
          onClose: closed,
        }),
      () => {},
    );
    closers.push(() => transport.close());
    return { host, close: () => transport.close() };
  }

  function keep(connection: GuestConnection): GuestConnection {
    closers.push(() => connection.close());
    return connection;
  }

  async function expectEcho(host: Host): Promise<void> {
    const client = host.open({ peer: host.addressOf("echo") });
    client.send("hello");
    await until(() => client.got.length === 1);
    expect(client.texts).toEqual(["hello"]);
  }

  test("connect: attached, and it answers; after close it is gone for good, and may be used again", async () => {
    const { host } = bridge("listen");
    const guest = new EmulatedGuest();
    const connection = keep(guest.connect(path));
    await connection.attached();
    expect(guest.inUse).toBe(true);
    await until(() => host.announced.length === 5);
    await expectEcho(host);
    connection.close();
    connection.close();
    await until(() => host.withdrawn.length === 5);
    expect(guest.inUse).toBe(false);
    await expect(connection.attached()).rejects.toThrow("the connection is closed");
    const again = keep(guest.connect(path));
    await again.attached();
    await until(() => host.announced.length === 10);
    expect(host.device.generation).toBe(2);
  });

  test("connect before the bridge is there: it tries again, says so once, and attaches", async () => {
    const errors: string[] = [];
    const guest = new EmulatedGuest();
    const connection = keep(guest.connect(path, { onError: ({ message }) => errors.push(message) }));
    await expect(guest.reboot()).rejects.toThrow("the guest is not attached");
    const { host } = bridge("listen");
    await connection.attached();
    expect(errors).toEqual([`cannot connect to ${path}: ENOENT, trying again (socket)`]);
    await until(() => host.announced.length === 5);
    await expectEcho(host);
  });

  test("without anybody to tell, that is a warning of the process", async () => {
    keep(new EmulatedGuest().connect(path));
    await until(() => warnings.length === 1);
    expect(warnings.splice(0)[0]?.message).toContain("cannot connect");
  });

  test("listen: the bridge connects, again and again; each time is told", async () => {
    let attached = 0;
    const guest = new EmulatedGuest();
    const connection = keep(guest.listen(path, { onAttached: () => attached++ }));
    const first = bridge("connect");
    await connection.attached();
    await until(() => first.host.announced.length === 5);
    first.close();
    await until(() => guest.bus === undefined);
    await expect(guest.reboot()).rejects.toThrow("the guest is not attached");
    const next = connection.attached();
    const order: string[] = [];
    void next.then(() => order.push("attached"));
    await turns();
    order.push("the second bridge");
    const second = bridge("connect");
    await next;
    await until(() => second.host.announced.length === 5);
    await expectEcho(second.host);
    expect(attached).toBe(2);
    expect(order).toEqual(["the second bridge", "attached"]);
    connection.close();
    expect(existsSync(path)).toBe(false);
  });

  test("reboot, pause and resume, also while others of them run, and out of a pause", async () => {
    const { host } = bridge("listen");
    const guest = new EmulatedGuest();
    await keep(guest.connect(path)).attached();
    await guest.reboot();
    await until(() => host.announced.length === 10);
    expect(host.device.generation).toBe(2);
    await guest.pause();
    expect(host.device.state).toBe("suspended");
    await Promise.all([guest.pause(), guest.resume(), guest.resume(), guest.pause(), guest.resume()]);
    expect(host.device.state).toBe("attached");
    await expectEcho(host);
    // Where the queues stood at the pause they do not stand any more.
    await guest.resume();
    await expectEcho(host);
    expect(host.device.generation).toBe(2);
    await guest.pause();
    await guest.reboot();
    await until(() => host.announced.length === 15);
    expect(host.device.generation).toBe(3);
    await expectEcho(host);
    await guest.pause();
    expect(host.device.state).toBe("suspended");
    await guest.resume();
    await expectEcho(host);
  });

  test("a guest runs at one place at a time", async () => {
    bridge("listen");
    const guest = new EmulatedGuest();
    keep(guest.connect(path));
    expect(() => guest.connect(path)).toThrow("in use already");
    expect(() => guest.listen(`${path}2`)).toThrow("in use already");
    const device = new RpmsgDevice();
    expect(() => attachInProcess(guest, device)).toThrow("in use already");
    expect(() => guest.setProfile("openamp")).toThrow("in use already");
    const other = new EmulatedGuest();
    const link = attachInProcess(other, device);
    onTestFinished(() => link.close());
    expect(() => other.connect(path)).toThrow("in use already");
  });

  test("closed before it was attached: who waits for that hears of it", async () => {
    const connection = new EmulatedGuest().listen(path);
    const attached = connection.attached();
    connection.close();
    await expect(attached).rejects.toThrow("closed before the guest was attached");
  });

  test("a socket that cannot be had: an error, and the guest is free again", () => {
    const guest = new EmulatedGuest();
    expect(() => guest.listen(join(directory, "missing", "vm.sock"))).toThrow("cannot listen");
    expect(guest.inUse).toBe(false);
  });

  test("a bridge that hangs up while the guest attaches: the guest tries again", async () => {
    const poller = new Poller();
    let hangUps = 0;
    const errors: string[] = [];
    const refusing = openTransport(
      "listen",
      path,
      poller,
      (fd, closed) => {
        const backend = new VhostUserBackend(fd, poller, new RpmsgDevice(), {
          onRefused() {},
          onClose: closed,
        });
        hangUps++;
        setImmediate(() => backend.close());
        return backend;
      },
      () => {},
    );
    closers.push(() => refusing.close());
    const guest = new EmulatedGuest();
    const connection = keep(guest.connect(path, { onError: ({ message }) => errors.push(message) }));
    await until(() => hangUps >= 2);
    refusing.close();
    const { host } = bridge("listen");
    await connection.attached();
    await until(() => host.announced.length === 5);
    await expectEcho(host);
    expect(errors.length).toBeGreaterThan(0);
  });
});
