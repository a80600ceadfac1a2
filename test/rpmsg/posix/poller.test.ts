import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setImmediate } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { errno } from "../../../rpmsg/posix/errno.ts";
import { createEventfd, drainEventfd, signalEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { EPOLLHUP, EPOLLIN, EPOLLOUT, Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd, recvmsg, sendmsg, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { collectGarbage, descriptorCount, settle, titled, unsupported } from "./support.ts";

let opened: number[] = [];
let pollers: Poller[] = [];
let before = 0;

function eventfd(): number {
  const fd = createEventfd();
  expect(fd).toBeGreaterThanOrEqual(0);
  opened.push(fd);
  return fd;
}

function openPair(): [number, number] {
  const pair = socketPair();
  opened.push(...pair);
  return pair;
}

function createPoller(onError?: (error: unknown) => void): Poller {
  const poller = onError === undefined ? new Poller() : new Poller({ onError });
  pollers.push(poller);
  return poller;
}

/** A promise with the first events of a descriptor that is added for it. */
function firstEvents(poller: Poller, fd: number): Promise<number> {
  return new Promise((resolve) => {
    expect(poller.add(fd, resolve)).toBe(0);
  });
}

describe.skipIf(unsupported !== undefined)(titled("Poller"), () => {
  beforeEach(async () => {
    opened = [];
    pollers = [];
    const poller = new Poller(); // libuv opens descriptors of its own for the first one
    await settle(poller);
    poller.close();
    before = descriptorCount();
  });

  afterEach(() => {
    for (const poller of pollers) {
      poller.close();
    }
    for (const fd of opened) {
      closeFd(fd);
    }
    expect(descriptorCount()).toBe(before);
  });

  describe("eventfds", () => {
    it("call back once for every write, though nobody reads them", async () => {
      const poller = createPoller();
      const fd = eventfd();
      let calls = 0;
      poller.add(fd, (events) => {
        expect(events).toBe(EPOLLIN);
        calls++;
      });
      for (let round = 1; round <= 5; round++) {
        signalEventfd(fd);
        await settle(poller);
        expect(calls).toBe(round);
      }
      await settle(poller);
      expect(calls).toBe(5);
    });

    it("call back once for writes of the same turn", async () => {
      const poller = createPoller();
      const fd = eventfd();
      let calls = 0;
      poller.add(fd, () => calls++);
      signalEventfd(fd);
      signalEventfd(fd);
      expect(calls).toBe(0);
      await settle(poller);
      expect(calls).toBe(1);
    });

    it("that were signalled before call back once when added", async () => {
      const poller = createPoller();
      const fd = eventfd();
      signalEventfd(fd);
      let calls = 0;
      poller.add(fd, () => calls++);
      await settle(poller);
      await settle(poller);
      expect(calls).toBe(1);
    });

    it("call back again after they were drained", async () => {
      const poller = createPoller();
      const fd = eventfd();
      let calls = 0;
      poller.add(fd, () => {
        calls++;
        drainEventfd(fd);
      });
      for (let round = 1; round <= 3; round++) {
        signalEventfd(fd);
        await settle(poller);
      }
      expect(calls).toBe(3);
    });

    it("all call back, when more are ready than one turn takes", async () => {
      const poller = createPoller();
      const calls = new Map<number, number>();
      for (let count = 0; count < 64 * 9 + 1; count++) {
        const fd = eventfd();
        calls.set(fd, 0);
        poller.add(fd, () => calls.set(fd, (calls.get(fd) as number) + 1));
        signalEventfd(fd);
      }
      await settle(poller);
      expect(calls.size).toBe(577);
      expect(new Set(calls.values())).toEqual(new Set([1]));
    });
  });

  describe("sockets", () => {
    it("report data, then the end of the stream", async () => {
      const poller = createPoller();
      const [near, far] = socketPair();
      opened.push(near);
      const waiting: ((events: number) => void)[] = [];
      poller.add(near, (events) => waiting.shift()?.(events));
      const next = (): Promise<number> => new Promise((resolve) => waiting.push(resolve));

      const first = next();
      sendmsg(far, Uint8Array.of(1, 2), 0, 2);
      expect(await first).toBe(EPOLLIN);
      const bytes = new Uint8Array(8);
      expect(recvmsg(near, bytes, 0, 8, [])).toBe(2);
      expect(recvmsg(near, bytes, 0, 8, [])).toBe(-errno.EAGAIN);

      const second = next();
      closeFd(far);
      expect((await second) & (EPOLLIN | EPOLLHUP)).toBe(EPOLLIN | EPOLLHUP);
      expect(recvmsg(near, bytes, 0, 8, [])).toBe(0);
    });

    it("report that they can be written again, when asked for", async () => {
      const poller = createPoller();
      const [near, far] = openPair();
      const chunk = new Uint8Array(16384);
      const seen: number[] = [];
      let wake: (() => void) | undefined;
      poller.add(near, (events) => {
        seen.push(events);
        wake?.();
      });
      await settle(poller);
      expect(seen).toEqual([]); // writable, but nobody asked

      while (sendmsg(near, chunk, 0, chunk.length) > 0) {}
      expect(poller.setWritable(near, true)).toBe(0);
      await settle(poller);
      expect(seen).toEqual([]); // full

      const writable = new Promise<void>((resolve) => {
        wake = resolve;
      });
      while (recvmsg(far, chunk, 0, chunk.length, []) > 0) {}
      await writable;
      expect((seen[0] as number) & EPOLLOUT).toBe(EPOLLOUT);

      expect(poller.setWritable(near, false)).toBe(0);
      seen.length = 0;
      while (sendmsg(near, chunk, 0, chunk.length) > 0) {}
      while (recvmsg(far, chunk, 0, chunk.length, []) > 0) {}
      await settle(poller);
      expect(seen).toEqual([]);
    });
  });

  describe("descriptors that cannot be watched", () => {
    it("are a regular file (-EPERM), closed ones (-EBADF), the same one twice (-EEXIST)", async () => {
      const poller = createPoller();
      const directory = mkdtempSync(join(tmpdir(), "rpmsg-posix-"));
      const file = openSync(join(directory, "file"), "w+");
      expect(poller.add(file, () => {})).toBe(-errno.EPERM);
      closeSync(file);
      rmSync(directory, { recursive: true });
      expect(poller.add(file, () => {})).toBe(-errno.EBADF);
      expect(poller.add(-1, () => {})).toBe(-errno.EBADF);

      const fd = eventfd();
      let calls = 0;
      expect(poller.add(fd, () => calls++)).toBe(0);
      expect(poller.add(fd, () => expect.unreachable())).toBe(-errno.EEXIST);
      expect(poller.setWritable(12345, true)).toBe(-errno.ENOENT);
      poller.remove(12345);
      signalEventfd(fd);
      await settle(poller);
      expect(calls).toBe(1);
    });
  });

  describe("removal", () => {
    it("ends the callbacks, and the descriptor may be added again", async () => {
      const poller = createPoller();
      const fd = eventfd();
      poller.add(fd, () => expect.unreachable());
      poller.remove(fd);
      poller.remove(fd);
      signalEventfd(fd);
      await settle(poller);
      expect(await firstEvents(poller, fd)).toBe(EPOLLIN);
    });

    it("in a batch silences an event already fetched", async () => {
      const poller = createPoller();
      const fds = [eventfd(), eventfd(), eventfd()];
      const called: number[] = [];
      for (const fd of fds) {
        poller.add(fd, () => {
          called.push(fd);
          for (const other of fds) {
            poller.remove(other);
          }
        });
        signalEventfd(fd);
      }
      await settle(poller);
      expect(called).toHaveLength(1);
    });

    it("in a batch does not hand the event to a new descriptor of the same number", async () => {
      const poller = createPoller();
      const fds = [createEventfd(), createEventfd()];
      const called: string[] = [];
      let replaced = -1;
      for (const [index, fd] of fds.entries()) {
        const other = fds[1 - index] as number;
        poller.add(fd, () => {
          called.push("old");
          opened.push(fd);
          poller.remove(other);
          closeFd(other);
          replaced = eventfd(); // the lowest free number
          expect(replaced).toBe(other);
          expect(poller.add(other, () => called.push("new"))).toBe(0);
        });
        signalEventfd(fd);
      }
      await settle(poller);
      expect(called).toEqual(["old"]);
      signalEventfd(replaced);
      await settle(poller);
      expect(called).toEqual(["old", "new"]);
    });

    it("after the descriptor was closed, and its number used again, is harmless", async () => {
      const poller = createPoller();
      const first = createEventfd();
      poller.add(first, () => expect.unreachable());
      closeFd(first);
      const second = eventfd();
      expect(second).toBe(first);
      poller.remove(first);
      const fired = firstEvents(poller, second);
      signalEventfd(second);
      expect(await fired).toBe(EPOLLIN);
    });
  });

  describe("errors", () => {
    it("of one callback do not stop the others, and are reported", async () => {
      const errors: unknown[] = [];
      const poller = createPoller((error) => errors.push(error));
      let calls = 0;
      for (let count = 0; count < 5; count++) {
        const fd = eventfd();
        poller.add(fd, () => {
          calls++;
          throw new Error(`callback ${count}`);
        });
        signalEventfd(fd);
      }
      await settle(poller);
      expect(calls).toBe(5);
      expect(errors.map((error) => (error as Error).message).toSorted()).toEqual([
        "callback 0",
        "callback 1",
        "callback 2",
        "callback 3",
        "callback 4",
      ]);
    });

    it.each([
      ["by default", undefined],
      [
        "when the reporter throws",
        (error: unknown) => {
          throw error;
        },
      ],
    ])("become uncaught exceptions %s", async (_, onError) => {
      const listeners = process.listeners("uncaughtException");
      process.removeAllListeners("uncaughtException");
      try {
        const uncaught = new Promise((resolve) => process.once("uncaughtException", resolve));
        const poller = createPoller(onError);
        const fd = eventfd();
        poller.add(fd, () => {
          throw new Error("unexpected");
        });
        signalEventfd(fd);
        expect(await uncaught).toHaveProperty("message", "unexpected");
        await settle(poller);
      } finally {
        for (const listener of listeners) {
          process.on("uncaughtException", listener);
        }
      }
    });
  });

  describe("the event loop", () => {
    it("runs ticks and promises of a callback before the next timers and immediates", async () => {
      // koffi calls back without one of Node's callback scopes, so that this is not to be taken for granted.
      const poller = createPoller();
      const fd = eventfd();
      const order: string[] = [];
      const done = new Promise<void>((resolve) => {
        poller.add(fd, () => {
          order.push("callback");
          process.nextTick(() => order.push("tick"));
          void Promise.resolve().then(() => {
            order.push("promise");
            resolve();
          });
        });
      });
      signalEventfd(fd);
      await done; // nothing else happens in this process: a promise left lying would hit the time limit
      expect(order).toEqual(["callback", "tick", "promise"]);
    });

    it("keeps a poller alive that nobody refers to", async () => {
      const fd = eventfd();
      let poller: Poller | undefined;
      const fired = new Promise<number>((resolve) => {
        const forgotten = new Poller();
        expect(
          forgotten.add(fd, (events) => {
            forgotten.close();
            resolve(events);
          }),
        ).toBe(0);
        poller = forgotten;
      });
      poller = undefined;
      for (let round = 0; round < 3; round++) {
        await collectGarbage();
      }
      signalEventfd(fd);
      expect(await fired).toBe(EPOLLIN);
      expect(poller).toBeUndefined();
    });

    it("serves several pollers", async () => {
      const fds = [eventfd(), eventfd()];
      const fired = fds.map((fd) => firstEvents(createPoller(), fd));
      for (const fd of fds) {
        signalEventfd(fd);
      }
      expect(await Promise.all(fired)).toEqual([EPOLLIN, EPOLLIN]);
    });

    it("serves many pollers with the descriptors of one", () => {
      createPoller();
      const count = descriptorCount();
      for (let more = 0; more < 20; more++) {
        createPoller();
      }
      expect(descriptorCount()).toBe(count);
    });
  });

  describe("several pollers", () => {
    it("do not touch each other's descriptors, and one watches on when the others are closed", async () => {
      const [first, second] = [createPoller(), createPoller()];
      const fd = eventfd();
      let calls = 0;
      expect(first.add(fd, () => calls++)).toBe(0);
      expect(second.add(fd, () => expect.unreachable())).toBe(-errno.EEXIST);
      expect(second.setWritable(fd, true)).toBe(-errno.ENOENT);
      second.remove(fd);
      second.close();
      signalEventfd(fd);
      await settle(first);
      expect(calls).toBe(1);
    });

    it("may each close all others in a callback", async () => {
      const witness = createPoller();
      const called: number[] = [];
      const some = Array.from({ length: 5 }, () => createPoller());
      for (const [index, poller] of some.entries()) {
        const fd = eventfd();
        poller.add(fd, () => {
          called.push(index);
          for (const each of some) {
            each.close();
          }
        });
        signalEventfd(fd);
      }
      await settle(witness);
      expect(called).toHaveLength(1);
    });

    it("may be opened anew in the callback that closes the last one", async () => {
      const poller = createPoller();
      const [fd, other] = [eventfd(), eventfd()];
      const fired = new Promise<number>((resolve) => {
        poller.add(fd, () => {
          poller.close();
          expect(createPoller().add(other, resolve)).toBe(0);
        });
      });
      signalEventfd(fd);
      signalEventfd(other);
      expect(await fired).toBe(EPOLLIN);
    });

    it("find a number free that one has closed without removing it", async () => {
      const [first, second] = [createPoller(), createPoller()];
      const closed = createEventfd();
      first.add(closed, () => expect.unreachable());
      closeFd(closed);
      const fd = eventfd();
      expect(fd).toBe(closed);
      const fired = firstEvents(second, fd);
      first.remove(fd);
      first.close();
      signalEventfd(fd);
      expect(await fired).toBe(EPOLLIN);
    });

    it("report what their own callbacks throw", async () => {
      const errors: string[] = [];
      const names = ["first", "second"];
      const both = names.map((name) => createPoller(() => errors.push(name)));
      for (const poller of both) {
        const fd = eventfd();
        poller.add(fd, () => {
          throw new Error("callback");
        });
        signalEventfd(fd);
      }
      await settle(both[0] as Poller);
      expect(errors.toSorted()).toEqual(names);
    });
  });

  describe("close", () => {
    it("is idempotent, and refuses everything afterwards", () => {
      const poller = createPoller();
      const fd = eventfd();
      poller.add(fd, () => expect.unreachable());
      poller.close();
      poller.close();
      expect(poller.add(fd, () => {})).toBe(-errno.EBADF);
      expect(poller.setWritable(fd, true)).toBe(-errno.ENOENT);
      poller.remove(fd);
      signalEventfd(fd);
    });

    it("in a callback ends the batch and is survived, also with garbage collected there and then", async () => {
      const witness = createPoller();
      for (let round = 0; round < 20; round++) {
        let poller: Poller | undefined = createPoller();
        let calls = 0;
        for (let count = 0; count < 70; count++) {
          const fd = eventfd();
          poller.add(fd, () => {
            calls++;
            poller?.close();
            poller = undefined;
            void collectGarbage();
            closeFd(createEventfd());
          });
          signalEventfd(fd);
        }
        pollers = [witness];
        await settle(witness);
        await setImmediate();
        expect(calls).toBe(1);
      }
    });

    it("of many pollers leaves no descriptor open", () => {
      const count = descriptorCount();
      for (let round = 0; round < 200; round++) {
        const poller = new Poller();
        const fd = createEventfd();
        poller.add(fd, () => {});
        poller.close();
        closeFd(fd);
      }
      expect(descriptorCount()).toBe(count);
    });
  });
});
