import { fstatSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { ConnectionSnapshot } from "../../rpmsg/index.ts";
import { closeFd, connectUnix, duplicateFd, listenUnix, Poller, socketPair } from "../../rpmsg/index.ts";
import { recvmsg, sendmsg } from "../../rpmsg/posix/unix-socket.ts";
import type { ChildSnapshot, Ending } from "../../server/guests/isolated-child.ts";
import { IsolatedChild } from "../../server/guests/isolated-child.ts";
import { BridgeControl, ProcessControl } from "../../server/guests/isolation-control.ts";
import { eventually, testDirectory } from "./support.ts";

function testPoller(): Poller {
  const poller = new Poller();
  onTestFinished(() => poller.close());
  return poller;
}

/** What a bridge has heard, in order. */
class Heard {
  readonly all: string[] = [];
  readonly events = {
    onConnection: (fd: number) => {
      this.all.push(`connection ${fstatSync(fd).isSocket()}`);
      closeFd(fd);
    },
    onRings: ({ response, request }: { response: number; request: number }) =>
      void this.all.push(`rings ${response} ${request}`),
    onReport: ({ event, reason, count }: { event: string; reason: string; count: number }) =>
      void this.all.push(`${event} ${reason} ${count}`),
    onUnsealed: () => void this.all.push("unsealed"),
    onPong: () => void this.all.push("pong"),
    onClose: () => void this.all.push("close"),
  };
}

describe("what the process of an isolated guest says", () => {
  test("is heard once and in order, at whatever byte of it the bridge is handed over", async () => {
    const poller = testPoller();
    const bytes = new Uint8Array(1000);
    let length = 0;
    let connectionBytes = 0;
    let passed = -1;
    {
      // As the process writes it.
      const [process, bridge] = socketPair();
      const control = new ProcessControl(process, poller, () => {});
      const fds: number[] = [];
      const receive = () => {
        for (let got = 1; got > 0; length += Math.max(0, got)) {
          got = recvmsg(bridge, bytes, length, bytes.length - length, fds);
          if (fds[0] !== undefined) passed = fds[0];
        }
      };
      const [given, other] = socketPair();
      control.connection(given);
      closeFd(other);
      receive();
      connectionBytes = length;
      control.unsealed();
      control.rings({ response: 256, request: 128 });
      control.report("closed", new Error("as it is"));
      receive();
      closeFd(bridge);
    }
    expect(connectionBytes).toBe(12);
    expect(passed).toBeGreaterThan(0);
    const expected = ["connection true", "unsealed", "rings 256 128", "closed as it is 1"];

    for (let at = 0; at <= length; at++) {
      const heard = new Heard();
      const [process, bridge] = socketPair();
      const first = new BridgeControl(bridge, poller, heard.events);
      if (at > 0) sendmsg(process, bytes, 0, at, [passed]);
      const whole = at < 12 ? 0 : at < 24 ? 1 : at < 44 ? 2 : at < length ? 3 : 4;
      const rest = at - ([0, 12, 24, 44, length][whole] as number);
      await eventually("all that was sent", () => {
        first.pause();
        const { received } = first.snapshot();
        if (heard.all.length === whole && received.length === rest) return true;
        first.resume();
        return undefined;
      });
      const snapshot: ConnectionSnapshot = structuredClone(first.snapshot());
      // It comes in part before the next bridge listens, in part after.
      const middle = Math.min(length, at + 7);
      const fds = at === 0 ? [passed] : [];
      if (middle > at) sendmsg(process, bytes, at, middle - at, fds);
      const second = new BridgeControl(snapshot, poller, heard.events);
      second.resume();
      if (middle < length) sendmsg(process, bytes, middle, length - middle);
      await eventually("everything", () => (heard.all.length >= expected.length ? true : undefined));
      expect(heard.all).toEqual(expected);
      second.close();
      closeFd(process);
    }
    closeFd(passed);
  });

  test("a question of the bridge before is answered to the next one", async () => {
    const poller = testPoller();
    const heard = new Heard();
    const [process, bridge] = socketPair();
    const first = new BridgeControl(bridge, poller, heard.events);
    first.pause();
    // It waits, as nothing is written any more.
    first.ping();
    const second = new BridgeControl(first.snapshot(), poller, heard.events);
    second.resume();
    const control = new ProcessControl(process, poller, () => heard.all.push("bridge gone"));
    await eventually("an answer", () => heard.all[0]);
    second.close();
    await eventually("the end", () => (heard.all.includes("bridge gone") ? true : undefined));
    expect(heard.all).toEqual(["pong", "close", "bridge gone"]);
    control.rings({ response: 1, request: 1 });
  });
});

describe("the process of an isolated guest, as the bridge has it", () => {
  /** A process that runs: it has taken a connection. */
  async function running(pingInterval?: number) {
    const poller = testPoller();
    const path = join(testDirectory(), "vm.sock");
    const listener = listenUnix(path);
    const frontend = connectUnix(path);
    const endings: Ending[] = [];
    let connected = 0;
    const events = {
      onConnection: (fd: number) => {
        connected++;
        closeFd(fd);
      },
      onRings() {},
      onReport() {},
      onUnsealed() {},
      onEnded: (how: Ending) => void endings.push(how),
      onError(error: Error) {
        throw error;
      },
    };
    const from = { options: { mode: "listen" as const, path }, listener };
    const child = new IsolatedChild(from, poller, events, pingInterval);
    onTestFinished(() => {
      child.stop();
      closeFd(listener);
      closeFd(frontend);
    });
    if (pingInterval === undefined)
      await eventually("a connection", () => (connected > 0 ? true : undefined));
    return { child, poller, events, ended: () => eventually("its end", () => endings[0]), endings };
  }

  /** What another bridge would get of it. */
  function handedOver(child: IsolatedChild): ChildSnapshot {
    child.pause();
    const snapshot = child.snapshot();
    if (snapshot === undefined) throw new Error("it is gone");
    const { control, output } = snapshot;
    return {
      ...snapshot,
      control: { ...control, fd: duplicateFd(control.fd) },
      output: duplicateFd(output),
    };
  }

  test("that answers nothing is killed", async () => {
    // It has not even begun.
    const { ended } = await running(1);
    expect(await ended()).toMatchObject({ signal: "SIGKILL" });
  });

  test("that stands still after a hand-over is killed by the bridge that has it now", async () => {
    const { child, poller, events, endings } = await running();
    const snapshot = handedOver(child);
    const taken: Ending[] = [];
    const onEnded = (how: Ending) => void taken.push(how);
    const next = new IsolatedChild(snapshot, poller, { ...events, onEnded }, 10);
    process.kill(snapshot.pid, "SIGSTOP");
    next.resume();
    expect(await eventually("its end", () => taken[0])).toEqual({ pid: snapshot.pid });
    // The bridge before does nothing any more.
    expect(endings).toEqual([]);
  });

  test("whose number is another process's by now is let go, and nobody is killed", async () => {
    const { child, poller, events } = await running();
    const snapshot = { ...handedOver(child), pid: process.pid };
    const taken: Ending[] = [];
    const onEnded = (how: Ending) => void taken.push(how);
    const next = new IsolatedChild(snapshot, poller, { ...events, onEnded }, 60_000);
    next.resume();
    next.kill();
    expect(await eventually("that it is let go", () => taken[0])).toEqual({ pid: process.pid });
  });
});
