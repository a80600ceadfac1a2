import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { VhostUserConnection } from "../../../rpmsg/vhost-user/connection.ts";
import type { FrontendSetup } from "../../../rpmsg/vhost-user/frontend.ts";
import { VhostUserFrontend } from "../../../rpmsg/vhost-user/frontend.ts";
import {
  bits,
  feature,
  inflightPayload,
  NEED_REPLY,
  protocolFeature,
  REPLY,
  request,
  requestName,
  statePayload,
  u64Payload,
} from "../../../rpmsg/vhost-user/messages.ts";
import { descriptorCount, limitDescriptors, titled, unsupported } from "../posix/support.ts";
import { setupOf } from "../support/own-frontend.ts";
import { SharedGuest } from "../support/vhost-user-session.ts";

/** How a backend answers. */
interface Answer {
  readonly payload: Uint8Array;
  readonly fds?: readonly number[];
  /** Another request than the one that is answered. */
  readonly id?: number;
  readonly flags?: number;
}

type Answers = Readonly<Record<number, Answer | undefined>>;

const BASES = [7, 9];
const FEATURES = bits(0, feature.LOG_ALL, feature.PROTOCOL_FEATURES, feature.VERSION_1);
const PROTOCOL = bits(
  protocolFeature.LOG_SHMFD,
  protocolFeature.REPLY_ACK,
  protocolFeature.INFLIGHT_SHMFD,
  protocolFeature.RESET_DEVICE,
);

describe.skipIf(unsupported !== undefined)(titled("our frontend, with a backend of another kind"), () => {
  let poller: Poller;
  let before = 0;
  let backend: VhostUserConnection;
  let frontend: VhostUserFrontend;
  let guest: SharedGuest;
  let opened: number[] = [];
  /** Requests that the backend got, by name; those whose acknowledgement was asked for with a "!". */
  let asked: string[] = [];
  /** Payloads of SET_VRING_ADDR. */
  let addresses: Buffer[] = [];
  let closes: (Error | undefined)[] = [];

  beforeEach(() => {
    before = descriptorCount();
    poller = new Poller({ onError: (error) => expect.unreachable(String(error)) });
    [opened, asked, addresses, closes] = [[], [], [], []];
  });

  afterEach(async () => {
    frontend.close();
    backend.close();
    guest.memory.close();
    for (const fd of opened) closeFd(fd);
    await nextTurn();
    poller.close();
    expect(descriptorCount()).toBe(before);
  });

  function eventfd(): number {
    const fd = createEventfd();
    opened.push(fd);
    return fd;
  }

  /** Both ends; the backend answers as it should where these answers do not say otherwise. */
  function open(answers: Answers = {}, change = (setup: FrontendSetup): FrontendSetup => setup): void {
    const [ours, theirs] = socketPair();
    guest = new SharedGuest();
    const usual: Answers = {
      [request.GET_FEATURES]: { payload: u64Payload(FEATURES) },
      [request.GET_PROTOCOL_FEATURES]: { payload: u64Payload(PROTOCOL) },
      [request.SET_LOG_BASE]: { payload: u64Payload(0n) },
    };
    backend = new VhostUserConnection(theirs, poller, {
      onMessage: ({ id, flags, payload }) => {
        const wantsAck = (flags & NEED_REPLY) !== 0;
        asked.push(`${requestName(id)}${wantsAck ? "!" : ""}`);
        if (id === request.SET_VRING_ADDR)
          addresses.push(Buffer.from(new Uint8Array(payload.buffer, 12, 40)));
        const bases = (): Uint8Array => {
          const queue = payload.getUint32(0, true);
          return statePayload(queue, BASES[queue] ?? 0);
        };
        const known = id === request.GET_VRING_BASE ? { payload: bases() } : usual[id];
        const answer = answers[id] ?? known ?? (wantsAck ? { payload: u64Payload(0n) } : undefined);
        if (answer !== undefined)
          backend.send(answer.id ?? id, answer.flags ?? REPLY, answer.payload, answer.fds);
      },
      onClose() {},
    });
    frontend = new VhostUserFrontend(ours, poller, change(setupOf(guest, 1)), {
      onCall() {},
      onClose: (error) => closes.push(error),
    });
  }

  test("without protocol features it asks for nothing that needs them", async () => {
    open({ [request.GET_FEATURES]: { payload: u64Payload(bits(feature.LOG_ALL, feature.VERSION_1)) } });
    await frontend.negotiate();
    expect(await frontend.trackInflight()).toBeUndefined();
    await expect(frontend.startLog({ fd: guest.region.fd, offset: 0, size: 4096 })).rejects.toMatchObject({
      code: "feature-not-offered",
    });
    await frontend.start();
    expect(await frontend.stop()).toEqual(BASES);
    const ring = ["NUM", "BASE", "ADDR", "KICK", "CALL"].map((part) => `SET_VRING_${part}`);
    expect(asked).toEqual([
      "GET_FEATURES",
      "SET_OWNER",
      "SET_FEATURES",
      "SET_MEM_TABLE",
      ...ring,
      ...ring,
      "GET_VRING_BASE",
      "GET_VRING_BASE",
    ]);
  });

  test("without acknowledgements a log is waited for, as its answer is one of its own", async () => {
    open({ [request.GET_PROTOCOL_FEATURES]: { payload: u64Payload(bits(protocolFeature.LOG_SHMFD)) } });
    await frontend.negotiate();
    await frontend.startLog({ fd: guest.region.fd, offset: 0, size: 4096 });
    expect(asked).toContain("SET_LOG_BASE");
    expect(asked.filter((name) => name.endsWith("!"))).toEqual([]);
  });

  test("a log that the backend refuses is not used", async () => {
    open({ [request.SET_LOG_BASE]: { payload: u64Payload(1n) } });
    await frontend.negotiate();
    await expect(frontend.startLog({ fd: guest.region.fd, offset: 0, size: 4096 })).rejects.toThrow(
      "the backend refuses SET_LOG_BASE",
    );
    expect(asked).not.toContain("SET_FEATURES!");
  });

  test("a request that the backend refuses", async () => {
    open({ [request.SET_MEM_TABLE]: { payload: u64Payload(1n) } });
    await frontend.negotiate();
    await expect(frontend.start()).rejects.toThrow("the backend refuses SET_MEM_TABLE");
    expect(asked.at(-1)).toBe("SET_MEM_TABLE!");
    // The connection goes on.
    await frontend.reset();
  });

  test("an in-flight buffer is kept as the backend gives it, and brought to the next", async () => {
    const description = { size: 640, offset: 4096, queues: 2, entries: 16 };
    const file = eventfd();
    open({ [request.GET_INFLIGHT_FD]: { payload: inflightPayload(description), fds: [file] } });
    await frontend.negotiate();
    const kept = await frontend.trackInflight();
    expect(kept).toMatchObject(description);
    opened.push(kept?.fd ?? -1);
    expect(await frontend.trackInflight(kept)).toBe(kept);
    expect(asked.slice(-3)).toEqual(["GET_INFLIGHT_FD", "SET_INFLIGHT_FD!", "SET_INFLIGHT_FD!"]);
  });

  test.each([
    ["without a descriptor", 24, false],
    ["that is too short", 19, true],
  ])("an in-flight buffer %s is none", async (_, length, withFd) => {
    const answer = { payload: new Uint8Array(length), fds: withFd ? [eventfd()] : [] };
    open({ [request.GET_INFLIGHT_FD]: answer });
    await frontend.negotiate();
    await expect(frontend.trackInflight()).rejects.toThrow("the backend gave no in-flight buffer");
    expect(asked).not.toContain("SET_INFLIGHT_FD!");
  });

  test("descriptors that come with an answer unasked are closed", async () => {
    open({ [request.GET_FEATURES]: { payload: u64Payload(FEATURES), fds: [eventfd(), eventfd()] } });
    await frontend.negotiate();
    expect(asked).toContain("SET_OWNER!");
  });

  test.each<[string, Answer, string]>([
    ["that is too short", { payload: new Uint8Array(7) }, "message-size"],
    ["to another request", { payload: new Uint8Array(8), id: request.GET_QUEUE_NUM }, "reply-unexpected"],
    ["that is marked as a request", { payload: new Uint8Array(8), flags: 0 }, "reply-unexpected"],
  ])("an answer %s ends the connection", async (_, answer, code) => {
    open({ [request.GET_FEATURES]: answer });
    await expect(frontend.negotiate()).rejects.toMatchObject({ code });
    expect(closes).toMatchObject([{ code }]);
    await expect(frontend.negotiate()).rejects.toMatchObject({ code: "socket" });
  });

  test("an answer to nothing ends the connection", async () => {
    open();
    await frontend.negotiate();
    backend.send(request.GET_FEATURES, REPLY, u64Payload(FEATURES));
    await expect(frontend.stop()).rejects.toMatchObject({ code: "reply-unexpected" });
    expect(closes).toMatchObject([{ code: "reply-unexpected" }]);
  });

  test("a used ring in no region has no address in a log: the backend refuses the ring itself", async () => {
    open({}, (setup) => ({
      ...setup,
      vrings: setup.vrings.map(({ size, addresses: at }) => ({ size, addresses: { ...at, used: 64 } })),
    }));
    await frontend.negotiate();
    await frontend.start();
    expect(addresses.map((payload) => payload.readBigUInt64LE(16))).toEqual([64n, 64n]);
    expect(addresses.map((payload) => payload.readBigUInt64LE(32))).toEqual([0n, 0n]);
  });

  test("does not start without a descriptor for its kicks, and says so", async () => {
    // No memory: its descriptors would not arrive in this process, which may have no more.
    open({}, (setup) => ({ ...setup, memory: [] }));
    await frontend.negotiate();
    const end = limitDescriptors(0);
    try {
      await expect(frontend.start()).rejects.toThrow("cannot make an eventfd: EMFILE");
    } finally {
      end();
    }
    await frontend.start();
    expect(asked.at(-1)).toBe("SET_VRING_ENABLE!");
  });
});
