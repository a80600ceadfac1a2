import { attachInProcess } from "../../guest/in-process.ts";
import type { EmulatedGuest } from "../../guest/index.ts";
import type { Attachment, GuestLink } from "./attachment.ts";

export { loadEmulatedGuest } from "./load-guest.ts";

/** An emulated guest in this process. */
export function emulatedLink(guest: EmulatedGuest, attachment: Attachment): GuestLink {
  const { log } = attachment;
  const link = attachInProcess(guest, attachment.device, ({ code, message }) => {
    log.write("guest-service", { code, reason: message });
  });
  const { queueSize } = guest.profile;
  return {
    kind: "emulated",
    connected: true,
    features: ["RPMSG_F_NS", "INDIRECT_DESC", "EVENT_IDX", "VERSION_1"],
    queues: { response: queueSize, request: queueSize },
    close: () => link.close(),
  };
}
