/** The bridge as a part of another program, such as a test. */
import type { Logger } from "pino";
import { pino } from "pino";
import type { ConfigInput } from "../schemas/index.ts";
import { Bridge } from "./bridge.ts";
import { checkConfig } from "./config/check-config.ts";
import { ConfigError } from "./config/config-error.ts";
import type { EmulatedGuest } from "./guests/open-guest.ts";
import { listen } from "./listen.ts";
import { Log } from "./log.ts";

export { ConfigError, type ConfigInput };

export interface StartOptions {
  /** Emulated guests of this program, by name; what the configuration says of a guest of that name goes for it too. */
  guests?: Readonly<Record<string, EmulatedGuest>>;
  /** Where to log. Without it nothing is logged, or with `logLevel` in the configuration on standard error. */
  log?: Logger;
}

export interface RunningBridge {
  /** `http://127.0.0.1:8080`, with TLS `https:`, or `unix:PATH`. */
  readonly url: string;
  /** Made for this run, where other machines can reach the bridge and the configuration has no tokens. */
  readonly token: string | undefined;
  /**
   * Ends in good order, as `rpmsg-bridge serve` on SIGTERM: clients are closed with 1001, what they have sent is
   * delivered, within `limits.drainTimeout`; then the guests are let go.
   */
  close(): Promise<void>;
}

/**
 * Starts a bridge in this process. It takes the configuration of the file, as an object; without any guest there is the
 * emulated guest `demo`. No signal is handled.
 * @returns when it listens, and what emulated guests announce at their start is listed
 * @throws ConfigError that names the key; SystemError, or an error with a code as EADDRINUSE: it cannot listen
 */
export async function startBridge(
  input: ConfigInput = {},
  options: StartOptions = {},
): Promise<RunningBridge> {
  const given = new Map(Object.entries(options.guests ?? {}));
  const guests: Record<string, unknown> = { ...input.guests };
  for (const name of given.keys()) guests[name] ??= { kind: "emulated" };
  if (Object.keys(guests).length === 0) guests["demo"] = { kind: "emulated" };
  const config = checkConfig({ ...input, guests });
  for (const name of given.keys()) {
    if (config.guests[name]?.kind === "emulated") continue;
    throw new ConfigError(`guests.${name}.kind`, "an emulated guest is given for it");
  }
  if (config.handover !== undefined) {
    throw new ConfigError("handover", "only a process of `rpmsg-bridge serve` hands over");
  }
  const level = input.logLevel ?? "silent";
  const logger = options.log ?? pino({ level, base: null }, pino.destination(2));
  const bridge = new Bridge(config, logger, given);
  const listener = await listen(bridge, new Log(logger));
  let closed: Promise<void> | undefined;
  return {
    url: listener.url,
    token: listener.made?.token,
    close() {
      closed ??= bridge.drain().then(() => listener.close());
      return closed;
    },
  };
}
