import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { startBridge } from "rpmsg-bridge";
import makeBoard from "./board.js";
import { Thermometer } from "./thermometer.js";

/** A bridge with a board, and your software connected to it; all gone at the end of the test. */
async function setUp(t) {
  const board = makeBoard();
  const bridge = await startBridge({ listen: "127.0.0.1:0" }, { guests: { board } });
  t.after(() => bridge.close());
  const url = `${bridge.url.replace("http", "ws")}/ws/v1/board/thermometer`;
  const thermometer = new Thermometer(url, { interval: 5, patience: 100 });
  t.after(() => thermometer.close());
  await once(thermometer, "reading");
  return { board, thermometer };
}

test("reads again and again", async (t) => {
  const { thermometer } = await setUp(t);
  const [second] = await once(thermometer, "reading");
  assert.deepEqual(second, { celsius: 21.5, readings: 2 });
});

test("goes on when the board reboots", async (t) => {
  const { board, thermometer } = await setUp(t);
  const lost = once(thermometer, "lost");
  await board.reboot();
  assert.deepEqual(await lost, [4001]);
  const [first] = await once(thermometer, "reading");
  assert.deepEqual(first, { celsius: 21.5, readings: 1 });
});

test("asks again when an answer is lost, or is garbled", async (t) => {
  const { board, thermometer } = await setUp(t);
  for (const fault of ["dropReceived", "corruptLength"]) {
    board.faults[fault] = 1;
    // The one that may be on its way, and one that came after the fault.
    await once(thermometer, "reading");
    await once(thermometer, "reading");
    assert.equal(board.faults[fault], 0);
  }
});
