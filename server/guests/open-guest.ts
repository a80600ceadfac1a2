import type { EmulatedGuest } from "../../guest/emulated-guest.ts";
import { CodedError } from "../../rpmsg/index.ts";
import type { GuestConfig, Limits } from "../../schemas/index.ts";
import type { BurstLog } from "../burst-log.ts";
import { ConfigError } from "../config/config-error.ts";
import type { GuestEvents } from "./attachment.ts";
import { Attachment } from "./attachment.ts";

export type { EmulatedGuest };

/**
 * Starts a guest as configured. The code of its kind is loaded when the first guest of the kind is.
 * @param guest an emulated guest that the caller has made
 * @throws ConfigError where a service of the host or the socket cannot be had as configured
 */
export async function openGuest(
  name: string,
  config: GuestConfig,
  limits: Limits,
  log: BurstLog,
  events: GuestEvents,
  guest?: EmulatedGuest,
): Promise<Attachment> {
  const attachment = new Attachment(name, limits, log, events);
  let key = `guests.${name}.endpoints`;
  try {
    for (const declaration of config.endpoints) attachment.declare(declaration);
    if (config.kind === "emulated") {
      const { emulatedLink, loadEmulatedGuest } = await import("./emulated.ts");
      const emulated = await loadEmulatedGuest(name, config, guest);
      attachment.start((self) => emulatedLink(emulated, self));
    } else {
      const { vhostUserLink } = await import("./vhost-user.ts");
      key = `guests.${name}.path`;
      attachment.start((self) => vhostUserLink(config, self));
    }
  } catch (error) {
    attachment.close();
    throw error instanceof CodedError ? new ConfigError(key, error.message) : error;
  }
  return attachment;
}
