import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RpmsgDevice } from "../../../rpmsg/device.ts";
import { createEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd, sendmsg, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { request } from "../../../rpmsg/vhost-user/messages.ts";
import { descriptorCount, titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { fdPayload, frame } from "../support/vhost-user-frames.ts";
import type { SessionOptions } from "../support/vhost-user-session.ts";
import { Session, useSessions } from "../support/vhost-user-session.ts";

/** A message with any contents; most have a known request, and numbers that could be queues, sizes and addresses. */
const anyMessage = fc.record({
  id: fc.oneof({ weight: 9, arbitrary: fc.integer({ min: 1, max: 44 }) }, fc.nat(0xffff_ffff)),
  flags: fc.constantFrom(1, 1, 1, 9, 9, 5, 0),
  words: fc.array(fc.oneof(fc.constantFrom(0, 1, 2, 16, 0x100, 0x1000, 0x4000_0000), fc.nat(0xffff_ffff)), {
    maxLength: 20,
  }),
  cut: fc.nat(3),
  fds: fc.array(fc.constantFrom("eventfd", "memory", "socket"), { maxLength: 4 }),
});

describe.skipIf(unsupported !== undefined)(titled("survival"), () => {
  const open = useSessions();

  test("200 frontends one after another, each with a generation of its own", async () => {
    const device = new RpmsgDevice();
    const { received } = openEndpoint(device, 1030);
    const before = descriptorCount();
    for (let i = 1; i <= 200; i++) {
      expect(device.generation).toBe(i);
      const session = open({ device });
      await session.features();
      const { kicks } = await session.start();
      session.guest.offer(0x400, 1030, `${i}`);
      // Every second one crashes before the kick was seen.
      session.kick(kicks[1]);
      if (i % 2 === 0) await turns();
      session.dispose();
      await session.closed;
      expect(device.state).toBe("detached");
    }
    expect(texts(received)).toEqual(Array.from({ length: 200 }, (_, i) => `${i + 1}`));
    expect(descriptorCount()).toBe(before);
  });

  test("20 restarts on one connection", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    await session.features();
    let bases = [0, 0];
    const before = descriptorCount();
    for (let i = 0; i < 20; i++) {
      const { kicks, calls } = await session.start(bases);
      session.guest.offer(0x400, 1030, `${i}`);
      session.kick(kicks[1]);
      await turns();
      expect(session.guest.returned()).toEqual([0]);
      bases = await session.stop();
      for (const fd of [...kicks, ...calls]) session.drop(fd);
      expect(bases).toEqual([0, i + 1]);
    }
    expect(received).toHaveLength(20);
    expect(session.device.generation).toBe(1);
    // Both calls are kept, the kicks are not; the first start also kept the memory.
    expect(descriptorCount() - before).toBeLessThanOrEqual(3);
  });

  test("descriptors of repeated messages do not pile up", async () => {
    const session = open();
    await session.features();
    const repeat = async (): Promise<number> => {
      await session.start();
      for (const queue of [0, 1])
        expect(await session.tell(request.SET_VRING_ERR, fdPayload(queue), [session.guest.region.fd])).toBe(
          0,
        );
      expect(
        await session.tell(request.SET_BACKEND_REQ_FD, new Uint8Array(), [session.guest.region.fd]),
      ).toBe(0);
      await session.stop();
      return descriptorCount();
    };
    const first = await repeat();
    for (let i = 1; i <= 5; i++) {
      // Two kicks and two calls of ours each time.
      expect(await repeat()).toBe(first + 4 * i);
    }
  });

  test("random messages with random descriptors do no more than end the connection", async () => {
    const poller = new Poller({ onError: (error) => expect.unreachable(String(error)) });
    const before = descriptorCount();
    let survived = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(anyMessage, { maxLength: 12 }), fc.boolean(), async (messages, running) => {
        const options: SessionOptions = {};
        const session = new Session(poller, options);
        await session.features();
        if (running) await session.start();
        for (const { id, flags, words, cut, fds } of messages) {
          if (session.isClosed) break;
          const payload = Buffer.from(Uint32Array.from(words).buffer);
          const [ours, theirs] = socketPair();
          const eventfd = createEventfd();
          const known = { eventfd, memory: session.guest.region.fd, socket: theirs };
          const bytes = frame(id, payload.subarray(0, Math.max(0, payload.length - cut)), flags);
          sendmsg(
            session.fd,
            bytes,
            0,
            bytes.length,
            fds.map((kind) => known[kind]),
          );
          for (const fd of [ours, theirs, eventfd]) closeFd(fd);
          await turns(2);
        }
        if (!session.isClosed) survived++;
        session.dispose();
        await session.closed;
        expect(session.device.state).toBe("detached");
        expect(descriptorCount()).toBe(before);
      }),
      { numRuns: 150 },
    );
    expect(survived).toBeGreaterThan(0);
    poller.close();
  });

  test("random bytes end the connection or wait for more", async () => {
    const before = descriptorCount();
    const poller = new Poller({ onError: (error) => expect.unreachable(String(error)) });
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
        const session = new Session(poller);
        sendmsg(session.fd, bytes, 0, bytes.length);
        await turns(2);
        session.dispose();
        await session.closed;
      }),
      { numRuns: 100 },
    );
    poller.close();
    expect(descriptorCount()).toBe(before);
  });
});
