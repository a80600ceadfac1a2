import { expect, test } from "vitest";
import type { BackendSnapshot } from "../../../rpmsg/vhost-user/backend.ts";
import { mapDescriptors } from "../../../rpmsg/vhost-user/snapshot-descriptors.ts";

/** A backend that has every descriptor that there can be: 1 to 15. */
const vring = (first: number) => ({
  size: 256,
  addresses: undefined,
  logAddress: undefined,
  base: 0,
  started: true,
  enabled: true,
  changing: false,
  kicked: false,
  polled: false,
  kick: first,
  call: first + 1,
  error: first + 2,
});
const region = (fd: number) => ({ fd, fileOffset: 0, guestAddress: 0, userAddress: 0, size: 4096 });
const full: BackendSnapshot = {
  connection: { fd: 1, received: new Uint8Array(3), fds: [2, 3], unsent: [] },
  protocolFeatures: 0n,
  status: 0,
  backendRequestFd: 4,
  vrings: {
    features: 0n,
    running: true,
    lacksMemory: false,
    memory: [region(5), region(6)],
    vrings: [vring(7), vring(10)],
    inflight: { size: 4096, offset: 0, queues: 2, entries: 256, fd: 13 },
    log: { file: { fd: 14, fileOffset: 0, size: 4096 }, notify: 15 },
  },
};

test("each descriptor of a snapshot is mapped once, and nothing else is changed", () => {
  const seen: number[] = [];
  const mapped = mapDescriptors(full, (fd) => {
    seen.push(fd);
    return 100 + fd;
  });
  expect(seen.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 15 }, (_, i) => i + 1));
  expect(mapDescriptors(mapped, (fd) => fd - 100)).toEqual(full);
  expect(mapped.vrings.vrings[1]).toMatchObject({ kick: 110, call: 111, error: 112, size: 256 });
});

test("what there is not is not mapped", () => {
  const nothing = { ...vring(0), kick: undefined, call: undefined, error: undefined };
  const empty: BackendSnapshot = {
    ...full,
    connection: { ...full.connection, fds: [] },
    backendRequestFd: undefined,
    vrings: {
      ...full.vrings,
      memory: [],
      vrings: [nothing, nothing],
      inflight: undefined,
      log: { file: undefined, notify: undefined },
    },
  };
  expect(mapDescriptors(empty, (fd) => fd)).toEqual(empty);
});
