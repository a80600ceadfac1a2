import { connect } from "node:net";

const BLOCK = 65_536;

/**
 * Writes numbered messages to a Unix socket, as fast as they are read, from the moment that it is told their size. The
 * reader stops it by reading no more.
 */
const socket = connect(process.argv[2] ?? "");
let size = 0;
let next = 0;

function run(): void {
  while (size > 0) {
    const count = Math.floor(BLOCK / size);
    const block = Buffer.alloc(count * size);
    for (let i = 0; i < count; i++) block.writeUInt32LE((next + i) >>> 0, i * size);
    next += count;
    if (!socket.write(block)) return;
  }
}

socket.on("connect", () => process.stdout.write("{}\n"));
socket.on("drain", run);
socket.on("data", (text) => {
  const started = size > 0;
  size = Number(String(text).trim().split("\n").at(-1));
  if (!started) run();
});
