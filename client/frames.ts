import type { ServerFrame } from "../schemas/index.ts";

export type Frame<Type extends ServerFrame["type"]> = Extract<ServerFrame, { type: Type }>;

type Check = (value: unknown) => boolean;

const text: Check = (value) => typeof value === "string";
const from =
  (least: number, most = Number.MAX_SAFE_INTEGER): Check =>
  (value) =>
    Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
const oneOf =
  (...values: unknown[]): Check =>
  (value) =>
    values.includes(value);
const maybe =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

const address = from(0, 0xffff_fffe);
const messageId: Check = (value) =>
  (typeof value === "string" && value.length <= 64) || Number.isSafeInteger(value);
const endpointState = oneOf("declared", "announced", "connected");
const guestState = oneOf("waiting", "detached", "suspended", "attached");

/**
 * What schemas/frames.ts says of each frame, but for two things that nothing here relies on: the form of guest names,
 * and the list of error codes, which may grow.
 */
const checks: { [Type in ServerFrame["type"]]: { [Key in Exclude<keyof Frame<Type>, "type">]-?: Check } } = {
  hello: {
    protocol: oneOf("rpmsg.v1.json"),
    guest: text,
    endpoint: text,
    id: text,
    local: address,
    endpointState,
    guestState,
    generation: from(1),
    mtu: from(0),
    instance: text,
    session: text,
    resumed: oneOf(true, false),
  },
  message: { seq: from(1), src: address, data: text, encoding: oneOf("utf8", "base64", "hex") },
  sent: { id: messageId },
  error: { id: maybe(messageId), code: text, message: text },
  dropped: { count: from(1) },
  state: {
    state: oneOf("up", "down"),
    reason: maybe(oneOf("reset", "withdrawn")),
    endpointState,
    guestState,
    generation: from(1),
  },
  pong: {},
};

/** Reads what came over the WebSocket. @returns undefined where it is no frame of the protocol */
export function parseFrame(data: unknown): ServerFrame | undefined {
  if (typeof data !== "string") return undefined;
  let frame: Record<string, unknown> | null;
  try {
    frame = JSON.parse(data) as Record<string, unknown> | null;
  } catch {
    return undefined;
  }
  const type = frame?.["type"];
  if (frame === null || typeof type !== "string" || !Object.hasOwn(checks, type)) return undefined;
  const fields = Object.entries(checks[type as ServerFrame["type"]]);
  return fields.every(([key, check]) => check(frame[key])) ? (frame as unknown as ServerFrame) : undefined;
}
