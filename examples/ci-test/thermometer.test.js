import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { startBridge } from "rpmsg-bridge";
import makeBoard from "./board.js";
import { Thermometer } from "./thermometer.js";

const timeout = 10_000;

/** A bridge with a board, and your software connected to it; all gone at the end of the test. */
async function setUp(t) {
  const board = makeBoard();
  const bridge = await startBridge({ listen: "127.0.0.1:0" }, { guests: { board } });
  t.after(() => bridge.close());
  const url = `${bridge.url.replace("http", "ws")}/ws/v1/board/thermometer`;
  const thermometer = new Thermometer(url, { interval: 5, patience: 100 });
  t.after(() => thermometer.close());
  const reading = async () => (await once(thermometer, "reading"))[0];
  assert.deepEqual(await reading(), { celsius: 21.5, readings: 1 });
  return { board, thermometer, reading };
}

test("reads again and again", { timeout }, async (t) => {
  const { reading } = await setUp(t);
  assert.deepEqual(await reading(), { celsius: 21.5, readings: 2 });
});

test("goes on when the board reboots", { timeout }, async (t) => {
  const { board, thermometer, reading } = await setUp(t);
  const lost = once(thermometer, "lost");
  await board.reboot();
  assert.deepEqual(await lost, [4001]);
  assert.deepEqual(await reading(), { celsius: 21.5, readings: 1 });
});

test("asks again when an answer is lost, or is garbled", { timeout }, async (t) => {
  const { board, reading } = await setUp(t);
  for (const fault of ["dropReceived", "corruptLength"]) {
    board.faults[fault] = 1;
    while (board.faults[fault] > 0) await reading();
    await reading();
  }
});
