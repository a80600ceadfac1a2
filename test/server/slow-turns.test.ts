import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { EmulatedGuest } from "../../guest/index.ts";
import type { ServiceContext } from "../../guest/service.ts";
import { emulatedBridge } from "./mux-client.ts";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually } from "./support.ts";

const MESSAGES = 20_000;
const SLOW_SIZE = 496;
const FAST_SIZE = 100;
const FRAME = FAST_SIZE + 2;

/** Sends to the first who spoke and to the second in turn, as fast as it can; notes when the second's went. */
class TwoListeners {
  readonly #addresses: number[] = [];
  readonly #now: () => number;
  #context: ServiceContext | undefined;
  /** The turn in which each message to the second listener was sent. */
  readonly sentAt: number[] = [];

  constructor(now: () => number) {
    this.#now = now;
  }

  readonly factory = (context: ServiceContext) => {
    this.#context = context;
    return {
      onMessage: (src: number) => {
        this.#addresses.push(src);
        if (this.#addresses.length === 2) this.#pump();
        return true;
      },
      onWritable: () => this.#pump(),
    };
  };

  #slowNext = true;

  #pump(): void {
    const [slow, fast] = this.#addresses;
    if (slow === undefined || fast === undefined) return;
    while (this.sentAt.length < MESSAGES) {
      const [to, size] = this.#slowNext ? [slow, SLOW_SIZE] : [fast, FAST_SIZE];
      if (this.#context?.send(to, Buffer.alloc(size)) !== true) return;
      if (!this.#slowNext) this.sentAt.push(this.#now());
      this.#slowNext = !this.#slowNext;
    }
  }
}

/**
 * Turns of the event loop from the sending of a message by the guest to its being written to the fast client's socket:
 * the most that any message took.
 */
async function mostTurns(policy: string, reads: boolean): Promise<{ most: number; slowDropped: number }> {
  let turn = 0;
  const service = new TwoListeners(() => turn);
  const { url, endpoint, close } = await emulatedBridge(
    { demo: new EmulatedGuest({ services: { both: service.factory } }) },
    { limits: { slowReaderBytes: 65_536 } },
  );
  let latest: Socket | undefined;
  const onSocket = (message: unknown) => {
    latest = (message as { socket: Socket }).socket;
  };
  subscribe("net.server.socket", onSocket);
  onTestFinished(() => {
    unsubscribe("net.server.socket", onSocket);
  });
  const slow = await RawClient.open(url, `/ws/v1/demo/both?slow=${policy}`);
  if (!reads) slow.socket.pause();
  slow.send(opcode.binary);
  await endpoint("both", ({ counters }) => counters.messagesToGuest === 1);
  const fast = await RawClient.open(url, "/ws/v1/demo/both");
  const near = latest;
  const before = near?.bytesWritten ?? 0;
  let written = 0;
  let most = 0;
  await new Promise<void>((resolve) => {
    const look = () => {
      turn++;
      const now = ((near?.bytesWritten ?? 0) - before) / FRAME;
      for (; written < now; written++) most = Math.max(most, turn - (service.sentAt[written] ?? 0));
      if (written === MESSAGES) resolve();
      else setImmediate(look);
    };
    setImmediate(look);
    fast.send(opcode.binary);
  });
  await eventually("all of them", () =>
    fast.frames.filter((each) => each.opcode === opcode.binary).length === MESSAGES ? true : undefined,
  );
  const { counters } = await endpoint("both");
  await close();
  return { most, slowDropped: counters.dropped };
}

test.each(["drop-oldest", "drop-newest"])(
  "a client that does not read, with slow=%s, delays another one of its endpoint by no more than a turn",
  async (policy) => {
    const usual = await mostTurns(policy, true);
    const { most, slowDropped } = await mostTurns(policy, false);
    // It was slow indeed.
    expect(slowDropped).toBeGreaterThan(1000);
    expect(most).toBeLessThanOrEqual(usual.most + 1);
  },
);

test("one that is closed for it does so neither", async () => {
  const usual = await mostTurns("close", true);
  const { most } = await mostTurns("close", false);
  expect(most).toBeLessThanOrEqual(usual.most + 1);
});
