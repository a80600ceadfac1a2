import { join } from "node:path";
import { createEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { createMemory } from "../../../rpmsg/posix/shared-memory.ts";
import { closeFd, connectUnix, sendmsg } from "../../../rpmsg/posix/unix-socket.ts";
import { request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { fdPayload, frame, table } from "../../rpmsg/support/vhost-user-frames.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { count, latencies, quantile, until } from "../../support/figures.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

/** One of so many places at which a message can be cut. */
const STEP = { test: 29, short: 3, full: 1 };
/** Milliseconds from the end of what was sent to the end of the connection. */
const CLOSED_WITHIN = 1000;
const USER_BASE = 0x7f12_3400_0000;
const MEMORY_SIZE = 65536;
/** More than the payload of any message. */
const OVERSIZED = [4097, 100_000, 0xffff_ffff];

export const scenario: Scenario = {
  fault: "a frontend splits, cuts off or makes too long each message of an attachment, at every byte",
  passes:
    "split: attached as ever; cut off and too long: closed within 1 s, nothing left, the next frontend is served",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const bridge = await BridgeProcess.start((directory) => ({
    logLevel: "fatal",
    guests: { vm: { kind: "vhost-user", path: join(directory, "vm.sock") } },
  }));
  const path = join(bridge.directory, "vm.sock");
  const fds = Array.from({ length: 4 }, createEventfd);
  const memory = createMemory("rpmsg-test", MEMORY_SIZE);
  const messages = attachment(memory, fds);
  const problems: string[] = [];
  const ends: number[] = [];
  let splits = 0;
  /** A frontend that says so many whole messages, and then something else. */
  const after = (whole: number): number => {
    const fd = connectUnix(path);
    if (fd < 0) throw new Error(`cannot connect: ${fd}`);
    for (const message of messages.slice(0, whole)) say(fd, message);
    return fd;
  };
  const isNow = (state: string) =>
    until(`the guest is ${state}`, async () =>
      (await bridge.guest("vm")).state === state ? true : undefined,
    );
  const errors = async () => (await bridge.guest("vm")).counters.frontendErrors;
  /** Says what the connection ends of, with an error. */
  const ended = async (what: string, action: () => void): Promise<void> => {
    const known = await errors();
    const start = performance.now();
    action();
    await until(`the end after ${what}`, async () => ((await errors()) > known ? true : undefined));
    ends.push(performance.now() - start);
    await isNow("waiting");
  };
  try {
    closeFd(await attached(after(messages.length)));
    await isNow("waiting");
    const before = bridge.outside();
    let place = 0;
    for (const [index, { name, bytes, fds: with_ }] of messages.entries()) {
      for (let at = 1; at < bytes.length; at++) {
        if (place++ % STEP[scale] !== 0) continue;
        const fd = after(index);
        say(fd, { name, bytes: bytes.subarray(0, at), fds: with_ });
        // An answer means that the bridge has been through its event loop, and has read that far.
        await bridge.health();
        for (const rest of [{ name, bytes: bytes.subarray(at), fds: [] }, ...messages.slice(index + 1)])
          say(fd, rest);
        closeFd(await attached(fd));
        await isNow("waiting");
        splits++;
        const cut = after(index);
        await ended(`${name}, cut off after ${at} bytes`, () => {
          say(cut, { name, bytes: bytes.subarray(0, at), fds: with_ });
          closeFd(cut);
        });
      }
      for (const size of OVERSIZED) {
        const fd = after(index);
        const header = Buffer.from(bytes.subarray(0, 12));
        header.writeUInt32LE(size, 8);
        await ended(`${name} of ${size} bytes`, () => say(fd, { name, bytes: header, fds: with_ }));
        closeFd(fd);
      }
    }
    closeFd(await attached(after(messages.length)));
    await isNow("waiting");
    const settled = () => (bridge.outside().descriptors <= before.descriptors ? bridge.outside() : undefined);
    const left = await until("as many descriptors as before", settled).catch(() => bridge.outside());
    if (left.descriptors > before.descriptors || left.guestMappings > before.guestMappings)
      problems.push(`left: ${JSON.stringify(left)}, before ${JSON.stringify(before)}`);
    const longest = quantile(ends, 1);
    return {
      measured:
        `${messages.length} messages, split at ${count(splits)} places: attached each time; ${count(ends.length)} cut off ` +
        `or too long: closed after ${latencies(ends)}, at most ${longest.toFixed(0)} ms; descriptors ` +
        `${before.descriptors} and ${left.descriptors}, guest mappings ${left.guestMappings}`,
      problems,
      slow: longest > CLOSED_WITHIN ? [`an end took ${longest.toFixed(0)} ms`] : [],
    };
  } finally {
    for (const fd of [...fds, memory]) closeFd(fd);
    await bridge.stop();
  }

  /** @returns the same, when the guest is attached */
  async function attached(fd: number): Promise<number> {
    await isNow("attached");
    return fd;
  }
}

interface Part {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

function say(fd: number, { name, bytes, fds }: Part): void {
  const sent = sendmsg(fd, bytes, 0, bytes.length, fds);
  if (sent !== bytes.length) throw new Error(`cannot send ${name}: ${sent}`);
}

/** All that attaches a guest, without acknowledgements. */
function attachment(memory: number, eventfds: readonly number[]): Part[] {
  const message = (
    name: keyof typeof request,
    payload: Uint8Array = new Uint8Array(),
    fds: readonly number[] = [],
  ): Part => ({ name, bytes: frame(request[name], payload), fds });
  const ring = (index: 0 | 1): Part[] => [
    message("SET_VRING_NUM", statePayload(index, 16)),
    message("SET_VRING_BASE", statePayload(index, 0)),
    message("SET_VRING_ADDR", addresses(index)),
    message("SET_VRING_KICK", fdPayload(index), [eventfds[2 * index] as number]),
    message("SET_VRING_CALL", fdPayload(index), [eventfds[2 * index + 1] as number]),
  ];
  const region = { guest: 0x4000_0000, size: MEMORY_SIZE, user: USER_BASE, offset: 0 };
  return [
    message("GET_FEATURES"),
    message("GET_PROTOCOL_FEATURES"),
    message("SET_PROTOCOL_FEATURES", u64Payload(0x1_b22bn)),
    message("SET_OWNER"),
    message("SET_FEATURES", u64Payload(0x1_7000_0001n)),
    message("SET_MEM_TABLE", table([region]), [memory]),
    ...ring(0),
    ...ring(1),
    message("GET_STATUS"),
    message("SET_VRING_ENABLE", statePayload(0, 1)),
    message("SET_VRING_ENABLE", statePayload(1, 1)),
  ];
}

/** Descriptors, available ring and used ring of a queue in its own page. */
function addresses(index: 0 | 1): Uint8Array {
  const payload = Buffer.alloc(40);
  const page = BigInt(USER_BASE + 4096 * index);
  payload.writeUInt32LE(index, 0);
  payload.writeBigUInt64LE(page, 8);
  payload.writeBigUInt64LE(page + 2048n, 16);
  payload.writeBigUInt64LE(page + 1024n, 24);
  return payload;
}
