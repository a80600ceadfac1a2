import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { count } from "../../support/figures.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const SOCKETS = { test: 100, short: 1000, full: 10_000 };
/** Connections that are opened at the same time. */
const AT_ONCE = 100;
/** Bytes of RSS that an idle socket may take. */
const MOST = 30 * 1024;

export const scenario: Scenario = {
  fault: "10,000 WebSockets that say nothing (1,000 without --full)",
  passes: "at most 30 KiB of RSS each, descriptors as before when they have gone",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const bridge = await BridgeProcess.start(() => ({ guests: { demo: { kind: "emulated" } } }));
  const sockets: Socket[] = [];
  try {
    // What the first ones load is no part of the others.
    for (const socket of await open(bridge.url, AT_ONCE)) socket.destroy();
    const before = await bridge.probe();
    const { descriptors } = bridge.outside();
    for (let left = SOCKETS[scale]; left > 0; left -= AT_ONCE)
      sockets.push(...(await open(bridge.url, AT_ONCE)));
    const during = await bridge.probe();
    const each = (during.rss - before.rss) / sockets.length;
    const heap = (during.heapUsed + during.external - before.heapUsed - before.external) / sockets.length;
    const health = await bridge.health();
    for (const socket of sockets) socket.destroy();
    const deadline = performance.now() + 20_000;
    while (bridge.outside().descriptors > descriptors && performance.now() < deadline) await bridge.probe();
    const left = bridge.outside().descriptors - descriptors;
    return {
      measured:
        `${count(sockets.length)} sockets: RSS ${(each / 1024).toFixed(1)} KiB each, of which heap and buffers ` +
        `${(heap / 1024).toFixed(1)} KiB; /healthz ${health.toFixed(1)} ms; descriptors left ${Math.max(0, left)}`,
      problems: left > 0 ? [`${left} descriptors are left`] : [],
      slow: each > MOST ? [`${(each / 1024).toFixed(1)} KiB each`] : [],
    };
  } finally {
    await bridge.stop();
  }
}

/** Clients that shake hands and then do nothing; plain sockets, so that this process has room for many. */
function open(url: string, number: number): Promise<Socket[]> {
  const { hostname, port } = new URL(url);
  return Promise.all(
    Array.from(
      { length: number },
      () =>
        new Promise<Socket>((resolve, reject) => {
          const socket = connect(Number(port), hostname);
          socket.once("error", reject);
          socket.once("data", (data) => {
            if (data.toString("latin1").startsWith("HTTP/1.1 101")) resolve(socket);
            else reject(new Error(data.toString("latin1").split("\r\n")[0]));
          });
          const key = randomBytes(16).toString("base64");
          socket.write(
            `GET /ws/v1/demo/echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
              `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
          );
        }),
    ),
  );
}
