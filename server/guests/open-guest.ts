import { CodedError } from "../../rpmsg/index.ts";
import type { GuestConfig, Limits } from "../../schemas/index.ts";
import type { BurstLog } from "../burst-log.ts";
import { ConfigError } from "../config/config-error.ts";
import type { GuestEvents } from "./attachment.ts";
import { Attachment } from "./attachment.ts";

/**
 * Starts a guest as configured. The code of its kind is loaded when the first guest of the kind is.
 * @throws ConfigError where a service of the host or the socket cannot be had as configured
 */
export async function openGuest(
  name: string,
  config: GuestConfig,
  limits: Limits,
  log: BurstLog,
  events: GuestEvents,
): Promise<Attachment> {
  const attachment = new Attachment(name, limits, log, events);
  let key = `guests.${name}.announce`;
  try {
    for (const announcement of config.announce) attachment.announce(announcement);
    if (config.kind === "emulated") {
      const { emulatedLink } = await import("./emulated.ts");
      attachment.start((self) => emulatedLink(config, self));
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
