import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import type { Client, RunningBridge } from "../server/support.ts";
import { eventually, startBridge, testDirectory } from "../server/support.ts";
import { LinuxGuest } from "./linux-guest.ts";

test("x", async () => {
  const socketPath = "/tmp/scratch/ns.sock";
  const running = await startBridge({
      guests: {
        vm: {
          kind: "vhost-user",
          path: socketPath,
          endpoints: [
            { name: "rpmsg-raw", address: 1040 },
            { name: "rpmsg-tty", address: 1041 },
            { name: "rpmsg-raw", ns: "both", address: 1042 },
            { name: "agreed", ns: "none", address: 2000 },
            { name: "fixed", ns: "none", address: 2001, peer: 0x31 },
            { name: "rpmsg-tty", ns: "up", address: 0x60, local: 2002 },
          ],
        },
      },
  });
  const t0 = performance.now();
  const guest = await LinuxGuest.boot({ socketPath, flavour: "rt-armmp" });
  console.log("boot", performance.now() - t0);
  const show = async (cmd: string) => console.log(cmd, JSON.stringify(await guest.run(cmd)));
  await show("sleep 1; ls /sys/bus/rpmsg/devices /dev/rpmsg* /dev/ttyRPMSG*");
  await show("for d in /sys/class/rpmsg/rpmsg[0-9]*; do echo ${d##*/} $(cat $d/name) $(cat $d/src) $(cat $d/dst); done");
  await show("guest-helper create-endpoint /dev/rpmsg_ctrl0 agreed 0x30 2000");
  await show("guest-helper create-endpoint /dev/rpmsg_ctrl0 fixed 0x31 2001");
  await show("guest-helper create-device /dev/rpmsg_ctrl0 rpmsg-tty 0x60 2002");
  await show("guest-helper create-device /dev/rpmsg_ctrl0 rpmsg-raw 0x78 1042");
  await show("guest-helper create-device /dev/rpmsg_ctrl0 rpmsg-raw 0x79 any");
  await show("sleep 1; ls /sys/bus/rpmsg/devices /dev/rpmsg* /dev/ttyRPMSG*");
  await show("for d in /sys/class/rpmsg/rpmsg[0-9]*; do echo ${d##*/} $(cat $d/name) $(cat $d/src) $(cat $d/dst); done; ls -l /sys/class/tty | grep RPMSG");
  console.log(JSON.stringify((await running.endpoints()).map((e) => [e.name, e.origin, e.ns, e.address, e.peer, e.state, e.path])));
  console.log((await running.guest("vm")).counters);
  await show("rmmod virtio_rpmsg_bus");
  console.log(JSON.stringify((await running.endpoints()).map((e) => [e.name, e.origin, e.ns, e.address, e.peer, e.state, e.path])));
  await show("insmod /modules/virtio_rpmsg_bus.ko");
  await show("sleep 1; ls /sys/bus/rpmsg/devices /dev/rpmsg* /dev/ttyRPMSG*");
  await show("for d in /sys/class/rpmsg/rpmsg[0-9]*; do echo ${d##*/} $(cat $d/name) $(cat $d/src) $(cat $d/dst); done; ls -l /sys/class/tty | grep RPMSG");
  console.log(JSON.stringify((await running.endpoints()).map((e) => [e.name, e.origin, e.ns, e.address, e.peer, e.state, e.path])));
  console.log(guest.transcript.split("\n").filter((x) => x.includes("console")).slice(-40).join("\n"));
  await guest.kill();
  await running.close();
}, 180000);
