import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { Command } from "../../server/cli-support.ts";
import { Client, testDirectory } from "../../server/support.ts";
import { descriptorCount, titled, unsupported } from "../posix/support.ts";
import { BusyGuest, SERVICE_ADDRESS } from "../support/busy-guest.ts";

const CORE = new URL("../../../dist/rpmsg/", import.meta.url).href;

/**
 * A backend in a process of its own, which answers every message and kills itself within the n-th: what it took in
 * this turn is in neither used ring.
 */
const BACKEND = `
  const [path, messages] = process.argv.slice(1);
  const { Poller, RpmsgDevice, VhostUserBackend, openTransport } = await import("${CORE}index.js");
  const device = new RpmsgDevice();
  let left = Number(messages);
  const endpoint = device.createEndpoint((src, bytes, offset, length) => {
    queue.send(src, bytes, offset, length);
    if (--left === 0) process.kill(process.pid, "SIGKILL");
  }, ${SERVICE_ADDRESS});
  const queue = device.createSendQueue(endpoint, endpoint, {}, { limit: 1e6, timeout: 1e6 });
  const poller = new Poller({ onError: console.error });
  const serve = (fd, onClose) => new VhostUserBackend(fd, poller, device, { onClose });
  openTransport("listen", path, poller, serve, console.error);
  console.log("ready");
`;

describe.skipIf(unsupported !== undefined)(titled("a backend that is killed under load"), () => {
  test("finds every chain that its predecessor had in flight: none is lost, none comes back twice", async () => {
    const before = descriptorCount();
    const path = join(testDirectory(), "vm.sock");
    const poller = new Poller();
    const vm = new BusyGuest(poller);
    let repeated = 0;
    let answered = 0;
    for (const messages of [1, 64, 65, 3000]) {
      const child = spawn(process.execPath, ["--input-type=module", "-e", BACKEND, path, `${messages}`]);
      child.stderr.pipe(process.stderr);
      const ended = once(child, "close");
      await once(child.stdout, "data");
      const { frontend, closed } = await vm.attach(path);
      await vm.until(frontend, () => false);
      await closed;
      expect(await ended).toEqual([null, "SIGKILL"]);
      // The message in whose handler it was killed, at least; the answer to it too where the guest listened already.
      const [response, request] = vm.inflight as [number, number];
      expect(request).toBeGreaterThanOrEqual(1);
      answered += response;
      repeated += request;
    }
    expect(answered).toBeGreaterThanOrEqual(1);
    const last = spawn(process.execPath, ["--input-type=module", "-e", BACKEND, path, "1000000"]);
    const ended = once(last, "close");
    await once(last.stdout, "data");
    const first = vm.sent;
    const { frontend, closed } = await vm.attach(path);
    await vm.until(frontend, () => vm.returned > 5000);
    await vm.finish(frontend);
    // An answer that waited for a buffer is gone with its backend, whatever became of the chain: not of the last one's.
    const late = () => vm.received.map(Number).filter((number) => number >= first);
    await vm.until(frontend, () => late().length >= vm.sent - first);
    expect(late()).toEqual(Array.from({ length: vm.sent - first }, (_, i) => first + i));
    // No message was answered again but where it was in flight at a kill.
    const answers = new Set(vm.received);
    expect(vm.received.length - answers.size).toBeLessThanOrEqual(repeated);
    frontend.close();
    await closed;
    last.kill();
    await ended;
    poller.close();
    vm.close();
    await nextTurn();
    expect(descriptorCount()).toBeLessThanOrEqual(before);
  });

  test("a whole bridge, with its clients", async () => {
    const path = join(testDirectory(), "vm.sock");
    const args = ["serve", "--listen", "127.0.0.1:0", "--guest", `vm=vhost-user:${path}`];
    const poller = new Poller();
    const vm = new BusyGuest(poller);
    const start = async () => {
      const bridge = Command.start([...args, "--announce", `vm/service@${SERVICE_ADDRESS}`]);
      const url = (await bridge.url()).replace("http", "ws");
      const attached = await vm.attach(path);
      return { bridge, ...attached, client: await Client.open(`${url}/ws/v1/vm/service`) };
    };
    const first = await start();
    for (let i = 0; i < 200; i++) first.client.send(`perhaps lost ${i}`);
    await vm.until(first.frontend, () => vm.returned >= 1000);
    await first.bridge.kill("SIGKILL");
    await first.closed;

    const { bridge, frontend, closed, client } = await start();
    const goal = vm.returned + 1000;
    await vm.until(frontend, () => vm.returned >= goal);
    await vm.finish(frontend);
    // Every buffer of the response queue is used in its turn.
    const texts = Array.from({ length: 200 }, (_, i) => `message ${i}`);
    for (const text of texts) client.send(text);
    await vm.until(frontend, () => vm.received.at(-1) === texts.at(-1));
    expect(vm.received.slice(-texts.length)).toEqual(texts);
    await client.close();
    frontend.close();
    await closed;
    await bridge.kill("SIGTERM");
    poller.close();
    vm.close();
  });
});
