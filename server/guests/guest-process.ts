import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { ProfileName } from "../../guest/profiles.ts";
import { VhostUserGuest } from "../../guest/vhost-user-guest.ts";
import { openTransport, Poller } from "../../rpmsg/index.ts";

export interface GuestProcessOptions {
  socket: string;
  mode: "connect" | "listen";
  profile: ProfileName;
  /** The guest is attached. */
  readonly onAttached: () => void;
  readonly onError: (error: Error) => void;
}

/**
 * Runs an emulated guest behind a vhost-user socket; it boots anew whenever it is connected.
 * @throws SystemError socket: the path cannot be listened on
 */
export function runGuestProcess(options: GuestProcessOptions): { close(): void } {
  const { socket, mode, profile, onAttached, onError } = options;
  const fail = (error: unknown) => onError(error instanceof Error ? error : new Error(String(error)));
  const poller = new Poller({ onError: fail });
  const serve = (fd: number, closed: () => void): VhostUserGuest => {
    const guest = new VhostUserGuest(new EmulatedGuest({ profile }), fd, poller, (error) => {
      if (error !== undefined) fail(error);
      closed();
    });
    guest.attach().then(onAttached, (error: unknown) => {
      fail(error);
      guest.close();
    });
    return guest;
  };
  return openTransport(mode, socket, poller, serve, fail);
}
