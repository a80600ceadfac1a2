import { join } from "node:path";
import { LinuxGuest } from "../../../scripts/linux-guest/linux-guest.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { latencies, until } from "../../support/figures.ts";
import { left } from "../grown.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const RELOADS = { test: 2, short: 5, full: 100 };
const PATIENCE = 60_000;

export const scenario: Scenario = {
  fault: "a real Linux guest (PREEMPT_RT, in QEMU without KVM) unloads and loads its virtio_rpmsg_bus module",
  passes:
    "a new generation each time, endpoints listed again, clients told 4001, messages pass, no descriptor or mapping left",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const available = LinuxGuest.availability("rt-armmp");
  if (!available.ok) return { measured: "", problems: [], skipped: available.reason };
  const bridge = await BridgeProcess.start((directory) => ({
    guests: {
      vm: {
        kind: "vhost-user",
        path: join(directory, "vm.sock"),
        endpoints: [{ name: "rpmsg-raw", address: 1040 }],
      },
    },
  }));
  let guest: LinuxGuest | undefined;
  try {
    guest = await LinuxGuest.boot({ socketPath: join(bridge.directory, "vm.sock"), flavour: "rt-armmp" });
    const problems: string[] = [];
    const reloads: number[] = [];
    let client = await serve(bridge, guest, 0);
    let before = bridge.outside();
    let probed = await bridge.probe();
    for (let i = 1; i <= RELOADS[scale]; i++) {
      const start = performance.now();
      for (const command of ["rmmod virtio_rpmsg_bus", "insmod /modules/virtio_rpmsg_bus.ko"]) {
        const { status, output } = await guest.run(command, { deadlineMs: PATIENCE });
        if (status !== 0) problems.push(`${command}: ${output}`);
      }
      const code = await client.closed;
      if (code !== 4001) problems.push(`reload ${i}: the client was closed with ${code}`);
      client = await serve(bridge, guest, i);
      reloads.push(performance.now() - start);
      const { generation, state } = await bridge.guest("vm");
      if (generation !== i + 1 || state !== "attached")
        problems.push(`reload ${i}: ${state}, generation ${generation}`);
      const endpoints = await bridge.endpoints();
      if (endpoints.length !== 1)
        problems.push(`reload ${i}: ${endpoints.length} endpoints are listed, not 1`);
      if (i !== 1) continue;
      probed = await bridge.probe();
      before = bridge.outside();
    }
    let after = bridge.outside();
    // A connection that a client has left, or did not need again, goes a moment later.
    await until("it is as before", () => {
      after = bridge.outside();
      const more = after.descriptors > before.descriptors || after.guestMappings > before.guestMappings;
      return more ? undefined : true;
    }).catch(() => {
      problems.push(`left: ${JSON.stringify(after)}, after the first reload ${JSON.stringify(before)}`);
    });
    problems.push(...(await left(bridge, probed)));
    if (guest.failure !== undefined) problems.push(guest.failure);
    client.socket.terminate();
    return {
      measured:
        `${RELOADS[scale]} reloads: module out to first echo ${latencies(reloads)}; descriptors ` +
        `${before.descriptors} and ${after.descriptors}, guest mappings ${before.guestMappings} and ${after.guestMappings}`,
      problems,
    };
  } finally {
    await guest?.kill();
    await bridge.stop();
  }
}

/** The guest echoes what comes to its character device; a client has had its first echo. */
async function serve(bridge: BridgeProcess, guest: LinuxGuest, round: number): Promise<EchoClient> {
  await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done", { deadlineMs: PATIENCE });
  guest.background("guest-helper serve /dev/rpmsg0 raw hello");
  await until(
    "the guest speaks",
    async () => ((await bridge.endpoints())[0]?.state === "connected" ? true : undefined),
    PATIENCE,
  );
  const client = await EchoClient.open(bridge.url, "/ws/v1/vm/rpmsg-raw");
  await client.echo(`round ${round}`);
  return client;
}
