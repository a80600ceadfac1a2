import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import {
  closeFd,
  connectUnix,
  duplicateFd,
  Poller,
  RpmsgDevice,
  VhostUserBackend,
} from "../../rpmsg/index.ts";
import type { IsolatedInheritance } from "../../server/guests/isolated-transport.ts";
import { IsolatedTransport } from "../../server/guests/isolated-transport.ts";
import { mapLink } from "../../server/guests/vhost-user-snapshot.ts";
import { eventually, testDirectory } from "./support.ts";
import { attachGuest } from "./vhost-guest.ts";

/** A transport, and what it serves: each connection is over for it when the test says so. */
function transport(path: string, inherited?: IsolatedInheritance) {
  const poller = new Poller();
  const served: { fd: number; over: () => void }[] = [];
  const serve = (fd: number, over: () => void) => {
    served.push({ fd, over });
    return new VhostUserBackend(fd, poller, new RpmsgDevice({}), { onClose() {} });
  };
  const events = {
    onRings() {},
    onReport() {},
    onUnsealed() {},
    onExited() {},
    onError(error: Error) {
      throw error;
    },
  };
  const config = { mode: "listen" as const, path };
  const made = new IsolatedTransport(config, undefined, poller, serve, events, inherited);
  onTestFinished(() => made.close());
  return { transport: made, served };
}

test("a connection that waits for its turn is handed over, and served", async () => {
  const path = join(testDirectory(), "vm.sock");
  const first = transport(path);
  const { vm, closed } = await attachGuest(path);
  vm.close();
  await closed;
  // The process follows the next frontend; the bridge has not yet noticed that the first one has gone.
  const frontend = connectUnix(path);
  const isolated = await eventually("a connection that waits", () => {
    first.transport.pause();
    const snapshot = first.transport.snapshot();
    if (snapshot.waiting.length > 0) return snapshot;
    first.transport.resume();
    return undefined;
  });
  closeFd(frontend);
  const next = attachGuest(path);
  // What is noticed while it stands still is not followed.
  first.served[0]?.over();
  await nextTurn();
  expect(first.served.length).toBe(1);

  // As another process would get it.
  const link = {
    mode: "listen" as const,
    path,
    transport: { listener: first.transport.listener, connection: undefined },
    backend: undefined,
    isolated,
    guestQueues: null,
  };
  const copies = new Map<number, number>();
  const second = transport(
    path,
    mapLink(link, (fd) => {
      copies.set(fd, duplicateFd(fd));
      return copies.get(fd) as number;
    }),
  );
  expect(second.served).toEqual([]);
  second.transport.resume();
  expect(second.served.map(({ fd }) => fd)).toEqual(isolated.waiting.map((fd) => copies.get(fd)));
  // That one has gone meanwhile; the process is told so by the answers that it gets, and takes the next frontend.
  second.served[0]?.over();
  await next;
  expect(second.served.length).toBe(2);
});
