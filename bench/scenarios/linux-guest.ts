import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:net";
import { setTimeout as elapsed } from "node:timers/promises";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import { startBenchBridge } from "../bridge.ts";
import type { EchoTarget } from "../echo-load.ts";
import { measureEcho } from "../echo-load.ts";
import type { BenchOptions, Running, Sample, Scenario, Shape } from "../scenario.ts";

const RAW = 1040;
const HAS_WEBSOCKIFY = spawnSync("websockify", ["--help"]).error === undefined;

/** A port that was free a moment ago, for programs that cannot pick one. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** websockify between WebSocket clients and a TCP port. Resolves once it listens. */
async function startWebsockify(target: number): Promise<{ port: number; stop(): void }> {
  const port = await freePort();
  const child = spawn("websockify", [`127.0.0.1:${port}`, `127.0.0.1:${target}`], { stdio: "ignore" });
  const stop = () => void child.kill("SIGKILL");
  process.once("exit", stop);
  for (let tries = 0; ; tries++) {
    const socket = connect(port, "127.0.0.1");
    const opened = await new Promise((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    socket.destroy();
    if (opened === true) break;
    if (tries > 200 || child.exitCode !== null) throw new Error("websockify does not listen");
    await elapsed(50);
  }
  return { port, stop };
}

/**
 * A real Linux guest, with the same program behind each of its ways out: `dd`, one read and one write a message.
 *
 * - bridge: /dev/rpmsg0, a service of the host, through the bridge.
 * - poll: adaptive: /dev/rpmsg1, the same through another device of that guest.
 * - chardev: a virtio-serial port that QEMU serves as a WebSocket. It is a stream of bytes, so that the program has to
 *   know how long a message is.
 * - chardev stream: the same with a program that reads and writes whatever is there.
 * - websockify: a virtio-serial port as a TCP socket, and websockify in front of it.
 */
async function start(shape: Shape, options: BenchOptions): Promise<Running> {
  const endpoints = [{ name: "rpmsg-raw", address: RAW }];
  const bridge = await startBenchBridge({ vm: { endpoints }, polled: { endpoints, poll: "adaptive" } });
  const [webSocketPort, tcpPort] = [await freePort(), await freePort()];
  const guest = await LinuxGuest.boot({
    socketPath: bridge.socketOf("vm"),
    extraArgs: [
      ...["-chardev", `socket,id=polled,path=${bridge.socketOf("polled")}`],
      ...["-device", "vhost-user-test-device-pci,chardev=polled,virtio-id=7,num_vqs=2,vq_size=256"],
      ...["-device", "virtio-serial-pci"],
      ...["-chardev", `socket,id=ws,host=127.0.0.1,port=${webSocketPort},server=on,wait=off,websocket=on`],
      ...["-device", "virtserialport,chardev=ws,nr=1"],
      ...["-chardev", `socket,id=tcp,host=127.0.0.1,port=${tcpPort},server=on,wait=off,nodelay=on`],
      ...["-device", "virtserialport,chardev=tcp,nr=2"],
    ],
  });
  await guest.run(
    "until [ -c /dev/rpmsg0 ] && [ -c /dev/rpmsg1 ] && ls /dev/vport*p2; do usleep 20000; done",
  );
  const [port = ""] = (await guest.run("ls /dev | grep -o '^vport[0-9]*'")).output.split("\n");
  const { size } = shape;
  // The guest has to speak first: the bridge learns the address of its end from that.
  for (const device of ["/dev/rpmsg0", "/dev/rpmsg1"]) {
    guest.background(`exec 3<>${device}; printf hello >&3; exec dd bs=${size} status=none <&3 >&3`);
  }

  /** Runs a program in the guest while the port has a client, and measures. */
  async function measureSerial(number: 1 | 2, program: string, target: EchoTarget): Promise<Sample> {
    const device = `/dev/${port}p${number}`;
    // Without a client a read of the port ends at once.
    const command = guest.background(`exec 3<>${device}; while :; do ${program} <&3 >&3; usleep 20000; done`);
    try {
      return await measureEcho(shape, target, options);
    } finally {
      await command.signal("KILL");
      await command.exit();
    }
  }

  const exactly = `dd bs=${size} iflag=fullblock status=none`;
  const qemu = {
    port: webSocketPort,
    path: "/",
    stream: true,
    subprotocol: "binary",
    watch: { Guest: guest.pid },
  };
  const proxy = HAS_WEBSOCKIFY ? await startWebsockify(tcpPort) : undefined;
  const measureBridge = (name: string): Promise<Sample> => {
    const watch = { Server: bridge.process.pid, Guest: guest.pid };
    return measureEcho(shape, { port: bridge.port, path: `/ws/v1/${name}/rpmsg-raw`, watch }, options);
  };
  const variants: Record<string, () => Promise<Sample>> = {
    bridge: () => measureBridge("vm"),
    "poll: adaptive": () => measureBridge("polled"),
    chardev: () => measureSerial(1, exactly, qemu),
    "chardev stream": () => measureSerial(1, "dd bs=65536 status=none", qemu),
  };
  if (proxy !== undefined) {
    // Its CPU is not told: it starts a process for each client.
    const watch = { Guest: guest.pid };
    variants["websockify"] = () =>
      measureSerial(2, exactly, { port: proxy.port, path: "/", stream: true, watch });
  }
  return {
    variants,
    notes: () => (proxy === undefined ? ["websockify is not installed (Debian package websockify)"] : []),
    async stop() {
      proxy?.stop();
      await guest.kill();
      await bridge.stop();
    },
  };
}

const SHAPES: readonly Shape[] = [
  { clients: 1, size: 64, inFlight: 32 },
  { clients: 1, size: 496, inFlight: 32 },
  { clients: 1, size: 64, inFlight: 1 },
];

export const linuxGuests = SHAPES.map((shape): Scenario => {
  const { size, inFlight } = shape;
  return {
    name: `linux-${size}x${inFlight}`,
    title: `A real Linux guest, ${size} bytes x ${inFlight} in flight`,
    figure:
      inFlight === 1
        ? { name: "p50us", label: "microseconds to the answer, median" }
        : { name: "perSecond", label: "messages a second" },
    missing() {
      const available = LinuxGuest.availability();
      return available.ok ? undefined : available.reason;
    },
    start: (options) => start(shape, options),
  };
});
