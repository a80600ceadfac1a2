/**
 * The process of a guest that floods its bridge with name service: `flood-main.js SOCKET MESSAGES SEED`. Announcements
 * and withdrawals of hostile names, of some that it has announced and of some that it has not, and some that are none
 * at all; as fast as they are taken. After the last one it sends a message to nobody (`unknownAddress`), and says `done`.
 */
import type { Service, ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";
import { encodeNameService, NAME_SERVICE_ADDRESS } from "../../rpmsg/index.ts";
import { hostileNames } from "../server/hostile-names.ts";
import { Random } from "./random.ts";

/** More than any bridge lists. */
const ADDRESSES = 4096;
const FIRST = 1024;
/** Nothing of the host is there. */
const NOBODY = 2 ** 31;

const [, , socket = "", messages = "", seed = ""] = process.argv;
const random = new Random(Number(seed));

function randomName(): string {
  return String.fromCharCode(...Array.from({ length: random.between(1, 32) }, () => random.between(1, 255)));
}

/** Each address has one name, so that withdrawals fit. */
const known = Array.from({ length: ADDRESSES }, (_, i) => {
  const fields = { name: hostileNames[i] ?? randomName(), address: FIRST + i };
  return [true, false].map((created) => encodeNameService({ ...fields, created })) as [
    Uint8Array,
    Uint8Array,
  ];
});

function nextMessage(): Uint8Array {
  const [announcement, withdrawal] = random.pick(known as [(typeof known)[0], ...typeof known]);
  if (random.chance(0.02)) return withdrawal;
  if (random.chance(0.9)) return announcement;
  // Names that nobody has heard, addresses that another one has, and lengths that are wrong.
  const other = encodeNameService({
    name: randomName(),
    address: random.below(2 ** 32),
    created: random.chance(0.5),
  });
  return random.chance(0.9) ? other : other.subarray(0, random.below(other.length));
}

/** Sends whenever there is room. */
function flood(context: ServiceContext): Service {
  let left = Number(messages);
  let message = nextMessage();
  let isDone = false;
  const fill = (): void => {
    while (left > 0 && context.send(NAME_SERVICE_ADDRESS, message)) {
      message = nextMessage();
      left--;
    }
    if (left > 0 || isDone || !context.send(NOBODY, Buffer.of(0))) return;
    isDone = true;
    process.send?.("done");
  };
  setImmediate(fill);
  return { onMessage: () => true, onWritable: fill };
}

new EmulatedGuest({ services: { flood } }).connect(socket, {
  onAttached: () => process.send?.("attached"),
  onError: () => {},
});
process.once("disconnect", () => process.exit());
