import type { EmulatedGuest } from "../../guest/emulated-guest.ts";
import { CodedError } from "../../rpmsg/index.ts";
import type { GuestConfig } from "../../schemas/index.ts";
import { ConfigError } from "../config/config-error.ts";
import type { Attachment } from "./attachment.ts";
import type { InheritedLink } from "./vhost-user-snapshot.ts";

export type { EmulatedGuest };

/**
 * Starts a guest as configured. The code of its kind is loaded when the first guest of the kind is.
 * @param attachment a new one, or one of another process
 * @param guest an emulated guest that the caller has made
 * @param inherited the link of another process
 * @throws ConfigError where a service of the host or the socket cannot be had as configured
 */
export async function openGuest(
  attachment: Attachment,
  config: GuestConfig,
  guest?: EmulatedGuest,
  inherited?: InheritedLink,
): Promise<void> {
  const { name } = attachment;
  const goesOn = inherited?.goesOn === true;
  let key = `guests.${name}.endpoints`;
  try {
    attachment.endpoints.configure(config.endpoints);
    // The guest of another process that is not handed over is gone.
    if (!goesOn) attachment.device.reset();
    if (config.kind === "emulated") {
      const { emulatedLink, loadEmulatedGuest } = await import("./emulated.ts");
      const emulated = await loadEmulatedGuest(name, config, guest);
      attachment.start((self) => emulatedLink(emulated, self));
    } else {
      const { vhostUserLink } = await import("./vhost-user.ts");
      key = `guests.${name}.path`;
      attachment.start((self) => vhostUserLink(config, self, inherited?.link), goesOn);
    }
  } catch (error) {
    attachment.close();
    throw error instanceof CodedError ? new ConfigError(key, error.message) : error;
  }
}
