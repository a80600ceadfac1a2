import assert from "node:assert/strict";
import { DeviceQueue } from "../../rpmsg/virtqueue/device-queue.ts";
import { codeOf } from "../rpmsg/support/coded.ts";
import type { Random } from "../support/random.ts";
import type { FuzzTarget } from "./fuzz-target.ts";
import { HostileDriver, LENGTHS, placeRing } from "./hostile-driver.ts";
import { HostileMemory } from "./hostile-memory.ts";
import type { PlainChain } from "./plain-ring.ts";
import { bytesOf, lengthOf, PlainRing, writeTo } from "./plain-ring.ts";

const UNTOUCHED = 0x5a;
/** Of what costs an error's stack each time. */
const OFTEN_ENOUGH = 0.02;
/** The longest chain: as many descriptors as the largest ring, each of the largest region. */
const SCRATCH = 64 * 4096;

/**
 * Descriptor tables, direct and indirect, with loops and lies, in several regions and windows, and what a guest does to
 * its rings with buffers that lie in them; against the plain ring.
 */
export const tables: FuzzTarget = {
  name: "tables",
  shortCases: 8000,
  open() {
    const memory = new HostileMemory();
    const scratch = new Uint8Array(SCRATCH + 1);
    return { run: (random) => new TableCase(memory, random, scratch).run(), close() {} };
  },
};

class TableCase {
  readonly #memory: HostileMemory;
  readonly #random: Random;
  readonly #scratch: Uint8Array;
  readonly #plain: PlainRing;
  readonly #queue: DeviceQueue;
  readonly #driver: HostileDriver;
  readonly #size: number;

  constructor(memory: HostileMemory, random: Random, scratch: Uint8Array) {
    this.#memory = memory;
    this.#random = random;
    this.#scratch = scratch;
    memory.reset();
    const { plain, setup } = placeRing(memory, random, 16 * random.below(64));
    memory.copyToOracle();
    this.#size = plain.size;
    this.#plain = new PlainRing(memory.plain, plain);
    this.#queue = new DeviceQueue(setup, plain.base);
    const regions = random.chance(0.1) ? [memory.rings, ...memory.buffers] : memory.buffers;
    this.#driver = new HostileDriver(memory, random, plain, {
      wild: 0.2,
      faults: 0.4,
      regions,
      lengths: LENGTHS,
      writable: 0.7,
    });
  }

  run(): string {
    for (let round = this.#random.between(1, 3); round > 0; round--) {
      this.#driver.write(this.#plain.position);
      this.#memory.copyToOracle();
      if (this.#random.chance(0.5)) this.#wantKicks();
      const code = this.#drain();
      assert.equal(this.#queue.publish(), this.#plain.show(), "whether the driver is called");
      this.#memory.assertAsOracle();
      if (code !== undefined) return code;
      if (this.#random.chance(0.5)) this.#wantKicks();
    }
    this.#memory.assertAsOracle();
    return "accepted";
  }

  /** @returns the code of the rule that the driver broke */
  #drain(): string | undefined {
    const queue = this.#queue;
    // A guest may move its index by a buffer that lies in its ring: it would never end.
    for (let left = 4 * this.#size; left > 0; left--) {
      const look = this.#plain.look();
      const code = codeOf(() => assert.equal(queue.peek(), look !== "empty", "whether there is a chain"));
      if (look === "empty") return undefined;
      if ("broken" in look) {
        assert.ok(code !== undefined && look.broken.has(code), `${code}, not ${[...look.broken].join()}`);
        if (this.#random.chance(OFTEN_ENOUGH)) {
          // It stays broken, and nothing is current.
          assert.equal(
            codeOf(() => queue.peek()),
            code,
          );
          assert.throws(() => queue.complete(0), RangeError);
        }
        return code;
      }
      assert.equal(code, undefined, "a chain that is as it has to be");
      this.#take(look);
    }
    return undefined;
  }

  /** Reads a chain, writes to it and gives it back. */
  #take(chain: PlainChain): void {
    const queue = this.#queue;
    const random = this.#random;
    const room = lengthOf(chain.writable);
    const { head, readableLength, writableLength, descriptorCount } = queue;
    assert.deepEqual(
      [head, readableLength, writableLength, descriptorCount],
      [chain.head, lengthOf(chain.readable), room, chain.descriptors],
    );
    // Again is free, and changes nothing.
    assert.ok(queue.peek());
    this.#gather(bytesOf(this.#memory.plain, chain.readable));
    let written = random.chance(0.5) ? 0 : random.below(Math.min(room, 16) + 1);
    if (room >= 16 && random.chance(0.8)) {
      written = 16 + random.pick([0, room - 16, random.below(room - 15)]);
      const message = Uint8Array.from({ length: written }, (_, i) => head + 7 * i);
      const header = new Uint32Array(message.buffer.slice(0, 16));
      queue.writeMessage(header, message, 16, written - 16);
      writeTo(this.#memory.plain, chain.writable, message);
    }
    if (random.chance(OFTEN_ENOUGH)) assert.throws(() => queue.complete(room + 1), RangeError);
    queue.complete(written);
    this.#plain.giveBack(head, written);
    assert.deepEqual(queue.position, this.#plain.position);
  }

  /** All readable bytes or the first ones, and not one more. */
  #gather(expected: Uint8Array): void {
    const length = this.#random.chance(0.8) ? expected.length : this.#random.below(expected.length + 1);
    this.#scratch[length] = UNTOUCHED;
    this.#queue.gather(this.#scratch, length);
    assert.equal(this.#scratch[length], UNTOUCHED);
    const bytes = this.#scratch.subarray(0, length);
    assert.ok(Buffer.compare(bytes, expected.subarray(0, length)) === 0, "bytes that the device reads");
  }

  #wantKicks(): void {
    const wanted = this.#random.chance(0.5);
    this.#queue.wantKicks(wanted);
    this.#plain.wantKicks(wanted);
  }
}
