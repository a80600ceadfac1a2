import { readSync, writeSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DirtyLog, LOG_PAGE } from "../../../rpmsg/memory/dirty-log.ts";
import { createEventfd, drainEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { createMemory } from "../../../rpmsg/posix/shared-memory.ts";
import { request, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { descriptorCount, titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, openSender, texts } from "../support/device-endpoints.ts";
import type { PairOptions } from "../support/own-frontend.ts";
import { FrontendPair } from "../support/own-frontend.ts";
import { slot } from "../support/vhost-user-frames.ts";
import { GUEST_BASE, MEMORY_SIZE, useSessions } from "../support/vhost-user-session.ts";

const PAGES_PER_BYTE = 8;
/** Bytes of a log that covers the guest's memory and not a page more. */
const LOG_SIZE = (GUEST_BASE + MEMORY_SIZE) / LOG_PAGE / PAGES_PER_BYTE;
/** The log begins there in its file: canaries are around it. */
const LOG_OFFSET = LOG_PAGE;
const CANARY = 0xa5;

describe("the log of written pages", () => {
  test.each([
    { name: "one byte", address: 0, length: 1, pages: [0] },
    { name: "a whole page", address: LOG_PAGE, length: LOG_PAGE, pages: [1] },
    { name: "two bytes over a border", address: 2 * LOG_PAGE - 1, length: 2, pages: [1, 2] },
    { name: "many", address: 6 * LOG_PAGE + 4095, length: 3 * LOG_PAGE, pages: [6, 7, 8, 9] },
    { name: "the last byte", address: 64 * LOG_PAGE - 1, length: 1, pages: [63] },
    { name: "over the end: what is in it", address: 63 * LOG_PAGE, length: 1e9, pages: [63] },
    { name: "behind the end: nothing", address: 64 * LOG_PAGE, length: 1, pages: [] },
    { name: "far behind the end: nothing", address: 2 ** 52, length: 2 ** 32, pages: [] },
  ])("nobody logs outside the log's size: $name", ({ address, length, pages }) => {
    const memory = new Uint8Array(24).fill(CANARY);
    const bits = memory.subarray(8, 16).fill(0);
    new DirtyLog(bits, () => {}).mark(address, length);
    expect(pagesOf(bits)).toEqual(pages);
    expect([...memory.subarray(0, 8), ...memory.subarray(16)]).toEqual(Array(16).fill(CANARY));
  });
});

describe.skipIf(unsupported !== undefined)(titled("dirty logging with our own frontend"), () => {
  let poller: Poller;
  let before: number;
  let pair: FrontendPair;
  let log: number;
  let notify: number;

  beforeEach(() => {
    before = descriptorCount();
    poller = new Poller({ onError: (error) => expect.unreachable(String(error)) });
    log = createMemory("log", 3 * LOG_OFFSET + LOG_SIZE);
    notify = createEventfd();
    writeSync(log, Buffer.alloc(LOG_OFFSET, CANARY), 0, LOG_OFFSET, 0);
    writeSync(log, Buffer.alloc(LOG_OFFSET, CANARY), 0, LOG_OFFSET, LOG_OFFSET + LOG_SIZE);
  });

  afterEach(async () => {
    const canaries = [bytesOf(0, LOG_OFFSET), bytesOf(LOG_OFFSET + LOG_SIZE, LOG_OFFSET)];
    expect(canaries.every((bytes) => bytes.every((byte) => byte === CANARY))).toBe(true);
    pair.close([log, notify]);
    await nextTurn();
    poller.close();
    expect(descriptorCount()).toBe(before);
  });

  function bytesOf(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readSync(log, bytes, 0, length, offset);
    return bytes;
  }

  /** Takes the pages that are marked, as the frontend does, by their number in guest memory. */
  function takeLog(): number[] {
    const pages = pagesOf(bytesOf(LOG_OFFSET, LOG_SIZE)).map((page) => page - GUEST_BASE / LOG_PAGE);
    writeSync(log, Buffer.alloc(LOG_SIZE), 0, LOG_SIZE, LOG_OFFSET);
    return pages;
  }

  async function start(options: PairOptions = {}): Promise<FrontendPair> {
    pair = new FrontendPair(poller, options);
    await pair.frontend.negotiate();
    await pair.frontend.start();
    return pair;
  }

  const startLog = (): Promise<void> =>
    pair.frontend.startLog({ fd: log, offset: LOG_OFFSET, size: LOG_SIZE, notify });

  /** The device's writes while `act` runs: pages that differ byte by byte. */
  async function written(act: () => void): Promise<number[]> {
    const memory = pair.guest.window.u8;
    const snapshot = Buffer.from(memory);
    act();
    await turns();
    const now = Buffer.from(memory.buffer, memory.byteOffset, memory.length);
    return Array.from({ length: MEMORY_SIZE / LOG_PAGE }, (_, page) => page).filter(
      (page) => Buffer.compare(pageOf(snapshot, page), pageOf(now, page)) !== 0,
    );
  }

  test.each([
    { regions: 1, eventIndex: false },
    { regions: 4, eventIndex: false },
    { regions: 4, eventIndex: true },
  ])("pages written are pages logged: $regions regions, EVENT_IDX $eventIndex", async (options) => {
    const { device, guest, frontend } = await start({ ...options, size: 256 });
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint, { peer: 0x400 });
    const usedPages = guest.rings.flatMap(({ used }) => pagesAt(used - GUEST_BASE, 6 + 8 * 256));
    await startLog();
    takeLog();
    // Buffers on the borders of pages and regions, in pieces and whole; each is used once.
    let next = 64 * 1024;
    const layout = fc.array(
      fc.record({
        gap: fc.constantFrom(0, 1, 4, 60, 2000, LOG_PAGE),
        cuts: fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 4 }),
        payload: fc.integer({ min: 1, max: 500 }),
      }),
      { minLength: 1, maxLength: 8 },
    );
    await fc.assert(
      fc.asyncProperty(layout, fc.boolean(), async (messages, requests) => {
        const allowed = new Set(usedPages);
        for (const { gap, cuts, payload } of messages) {
          next += gap;
          if (next > MEMORY_SIZE - 4096) next = 64 * 1024;
          const pieces = [...cuts, 16 + payload].map((length) => {
            const address = GUEST_BASE + next;
            next += length;
            return { address, length };
          });
          guest.postAt(...pieces);
          for (const { address, length } of pieces)
            for (const page of pagesAt(address - GUEST_BASE, length)) allowed.add(page);
          if (requests) guest.offer(0x400, 1030, "request");
        }
        const changed = await written(() => {
          for (const { payload } of messages) sender.send(Buffer.alloc(payload, 0x11));
          frontend.kick(0);
          if (requests) frontend.kick(1);
        });
        const logged = takeLog();
        expect(guest.receiveAll()).toHaveLength(messages.length);
        guest.returned();
        // No written page is missing, and only what the device may write is there.
        expect(changed.filter((page) => !logged.includes(page))).toEqual([]);
        expect(logged.filter((page) => !allowed.has(page))).toEqual([]);
        expect(changed).not.toEqual([]);
        // Beyond what differs there are only event indexes and flags that were written anew with the same value.
        expect(logged.filter((page) => !changed.includes(page) && !usedPages.includes(page))).toEqual([]);
      }),
      { numRuns: 60 },
    );
    expect(drainEventfd(notify)).toBe(1);
  });

  test("begins and ends while the device runs, which notices nothing", async () => {
    const { device, guest, frontend, states } = await start({ eventIndex: true });
    const { received } = openEndpoint(device, 1030);
    const offer = (text: string) =>
      written(() => {
        guest.offer(0x400, 1030, text);
        frontend.kick(1);
      });
    await offer("before");
    expect(takeLog()).toEqual([]);
    for (const text of ["during", "during a second one"]) {
      await startLog();
      await offer(text);
      expect(takeLog()).not.toEqual([]);
      await frontend.stopLog();
      takeLog();
      drainEventfd(notify);
      await offer("after");
      expect(takeLog()).toEqual([]);
      expect(drainEventfd(notify)).toBe(0);
    }
    expect(texts(received)).toEqual(["before", "during", "after", "during a second one", "after"]);
    expect(states).toEqual(["attached"]);
    expect([device.state, device.generation]).toEqual(["attached", 1]);
  });

  test("goes on over a restart of the rings", async () => {
    const { guest, frontend } = await start();
    await startLog();
    const bases = await frontend.stop();
    takeLog();
    guest.offer(0x400, 1030, "message");
    await frontend.start(bases);
    await turns();
    expect(takeLog()).toEqual(pagesAt((guest.rings[1]?.used ?? 0) - GUEST_BASE, 6 + 8 * 16));
  });

  test("a log that ends a page before the memory is refused", async () => {
    const { frontend, refused } = await start();
    const short = { fd: log, offset: LOG_OFFSET, size: LOG_SIZE - 1 };
    await expect(frontend.startLog(short)).rejects.toThrow("SET_LOG_BASE");
    expect(refused).toEqual(["log-range"]);
    await startLog();
  });
});

describe.skipIf(unsupported !== undefined)(titled("what is refused while writes are logged"), () => {
  const open = useSessions();

  test.each([
    {
      name: "a used ring that is logged behind the end",
      id: request.SET_VRING_ADDR,
      payload: (addresses: Uint8Array) => logged(addresses, GUEST_BASE + MEMORY_SIZE - 133),
      fds: 0,
    },
    {
      name: "a used ring that is logged at 2^64 - 1",
      id: request.SET_VRING_ADDR,
      payload: (addresses: Uint8Array) => logged(addresses, 2n ** 64n - 1n),
      fds: 0,
    },
    {
      name: "memory behind the end of the log",
      id: request.ADD_MEM_REG,
      payload: () => slot({ guest: GUEST_BASE + MEMORY_SIZE, size: 4096, user: 0, offset: 0 }),
      fds: 1,
    },
  ])("$name", async ({ id, payload, fds }) => {
    const session = open();
    await session.features();
    await session.start();
    const log = session.own(createMemory("log", LOG_SIZE));
    const base = Buffer.concat([u64Payload(BigInt(LOG_SIZE)), u64Payload(0n)]);
    expect((await session.ask(request.SET_LOG_BASE, base, [log])).length).toBe(8);
    expect(await session.tell(request.SET_FEATURES, u64Payload(0x1_7400_0001n))).toBe(0);
    const descriptors = [session.guest.region.fd].slice(0, fds);
    expect(await session.tell(id, payload(session.addresses(1)), descriptors)).not.toBe(0);
    expect(session.refused).toEqual(["log-range"]);
    // At the very end it is fine, and the device has run all the time.
    const last = logged(session.addresses(1), GUEST_BASE + MEMORY_SIZE - 134);
    expect(await session.tell(request.SET_VRING_ADDR, last)).toBe(0);
    session.guest.offer(0x400, 1030, "message");
    session.device.rescan();
    const bits = Buffer.alloc(LOG_SIZE);
    readSync(log, bits, 0, LOG_SIZE, 0);
    expect(pagesOf(bits)).toEqual([(GUEST_BASE + MEMORY_SIZE) / LOG_PAGE - 1]);
  });

  test("nothing without LOG_SHMFD", async () => {
    const session = open();
    await session.features(0x1_8000 | 0x3229);
    const base = Buffer.concat([u64Payload(BigInt(LOG_SIZE)), u64Payload(0n)]);
    const log = session.own(createMemory("log", LOG_SIZE));
    expect(await session.tell(request.SET_LOG_BASE, base, [log])).not.toBe(0);
    expect(session.refused).toEqual(["feature-not-offered"]);
  });
});

/** SET_VRING_ADDR with the log flag and this log address. */
function logged(addresses: Uint8Array, address: number | bigint): Uint8Array {
  const payload = Buffer.from(addresses);
  payload.writeUInt32LE(1, 4);
  payload.writeBigUInt64LE(BigInt(address), 32);
  return payload;
}

function pagesOf(bits: Uint8Array): number[] {
  const pages: number[] = [];
  for (const [i, byte] of bits.entries())
    for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) pages.push(8 * i + bit);
  return pages;
}

function pagesAt(offset: number, length: number): number[] {
  const first = Math.floor(offset / LOG_PAGE);
  const last = Math.floor((offset + length - 1) / LOG_PAGE);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

function pageOf(memory: Buffer, page: number): Buffer {
  return memory.subarray(page * LOG_PAGE, (page + 1) * LOG_PAGE);
}
