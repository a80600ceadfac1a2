import { attachInProcess, EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { GuestConfig } from "../../schemas/index.ts";
import type { Attachment, GuestLink } from "./attachment.ts";

/** An emulated guest in this process. */
export function emulatedLink(
  config: Extract<GuestConfig, { kind: "emulated" }>,
  attachment: Attachment,
): GuestLink {
  const guest = new EmulatedGuest({ profile: config.profile });
  const link = attachInProcess(guest, attachment.device);
  const { queueSize } = guest.profile;
  return {
    kind: "emulated",
    connected: true,
    features: ["RPMSG_F_NS", "INDIRECT_DESC", "EVENT_IDX", "VERSION_1"],
    queues: { response: queueSize, request: queueSize },
    close: () => link.close(),
  };
}
