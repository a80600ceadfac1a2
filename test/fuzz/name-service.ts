import assert from "node:assert/strict";
import { NameService } from "../../rpmsg/name-service.ts";
import type { Random } from "../support/random.ts";
import type { FuzzSession, FuzzTarget } from "./fuzz-target.ts";

/** Most announcements that the service under test keeps. */
export const LIMIT = 4;
/** Few, so that creates and destroys meet. */
const ADDRESSES = [0, 30, 52, 53, 54, 1024, 0x8000_0000, 0xffff_fffe, 0xffff_ffff] as const;
const FLAGS = [0, 0, 0, 1, 1, 2, 3, 0x8000_0000, 0xffff_ffff] as const;

/** Messages to address 53 of every length and content, against a list of what a guest may have announced. */
export const nameService: FuzzTarget = {
  name: "name-service",
  shortCases: 800,
  open: () => ({ run, close() {} }) satisfies FuzzSession,
};

function run(random: Random): string {
  const events: string[] = [];
  const told = (kind: string) => (announcement: Announcement) =>
    events.push(`${kind} ${keyOf(announcement)}`);
  const service = new NameService(
    { announced: told("up"), withdrawn: told("down"), told() {} },
    () => {},
    LIMIT,
  );
  /** "address name", the name in hex: what is announced, in order. */
  const model: string[] = [];
  const expected: string[] = [];
  const names = Array.from({ length: 3 }, () => randomName(random));
  let accepted = 0;
  for (let left = random.between(1, 24); left > 0; left--) {
    const message = randomMessage(random, names);
    const before = Buffer.from(message.bytes);
    const verdict = service.receive(message.bytes, message.offset, message.length);
    assert.equal(verdict, judge(message, model, expected));
    assert.deepEqual(message.bytes, before, "the guest's message was written");
    assert.deepEqual([...service.guestAnnouncements].map(keyOf), model);
    assert.deepEqual(events, expected);
    if (verdict === "accepted") accepted++;
  }
  service.reset();
  assert.deepEqual(events, [...expected, ...model.map((key) => `down ${key}`)]);
  assert.deepEqual([...service.guestAnnouncements], []);
  return accepted === 0 ? "none-accepted" : "accepted";
}

export interface Message {
  bytes: Uint8Array;
  offset: number;
  length: number;
}

/** What rpmsg_ns_cb of Linux does, and our bound; written from the layout `char name[32]; u32 addr; u32 flags`. */
export function judge({ bytes, offset, length }: Message, model: string[], events: string[]): string {
  if (length !== 40) return "malformed";
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, length);
  let name = "";
  for (let i = 0; i < 32 && bytes[offset + i] !== 0; i++)
    name += hex(bytes.subarray(offset + i, offset + i + 1));
  const address = view.getUint32(32, true);
  if (address === 0xffff_ffff || address === 53) return "malformed";
  const key = `${address} ${name}`;
  const known = model.indexOf(key);
  if (view.getUint32(36, true) % 2 === 1) {
    if (known === -1) return "unknown";
    model.splice(known, 1);
    events.push(`down ${key}`);
    return "accepted";
  }
  if (known !== -1) return "duplicate";
  if (model.length === LIMIT) return "limit";
  model.push(key);
  events.push(`up ${key}`);
  return "accepted";
}

/** Fills in name, address and flags of a message at an offset. */
export function writeRandom(random: Random, bytes: Buffer, offset: number): void {
  randomName(random).copy(bytes, offset);
  bytes.writeUInt32LE(random.chance(0.9) ? random.pick(ADDRESSES) : random.below(2 ** 32), offset + 32);
  bytes.writeUInt32LE(random.pick(FLAGS), offset + 36);
}

function randomMessage(random: Random, names: readonly Buffer[]): Message {
  const offset = random.below(20);
  const length = random.chance(0.8) ? 40 : random.pick([0, 1, 32, 39, 41, 72, random.below(496)]);
  const bytes = Buffer.alloc(offset + Math.max(length, 40) + 8);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.below(256);
  writeRandom(random, bytes, offset);
  if (random.chance(0.9)) (names[random.below(names.length)] as Buffer).copy(bytes, offset);
  return { bytes, offset, length };
}

/** 32 bytes: no NUL at all, one at the start, several, names that differ behind the NUL only. */
function randomName(random: Random): Buffer {
  const name = Buffer.alloc(32);
  const end = random.pick([0, 1, 31, 32, random.below(32)]);
  for (let i = 0; i < 32; i++) name[i] = random.chance(0.5) ? random.below(256) : 0x61 + random.below(2);
  for (let i = 0; i < end; i++) name[i] = (name[i] ?? 0) || 1;
  if (end < 32) name[end] = 0;
  return name;
}

interface Announcement {
  /** One character a byte. */
  name: string;
  address: number;
}

/** "address name", as `judge` has it. */
export function keyOf({ name, address }: Announcement): string {
  return `${address} ${hex(Buffer.from(name, "latin1"))}`;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
