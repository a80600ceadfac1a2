import type { GuestConnection, ProfileName } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";

export interface GuestProcessOptions {
  socket: string;
  mode: "connect" | "listen";
  profile: ProfileName;
  /** The guest is attached. */
  readonly onAttached: () => void;
  readonly onError: (error: Error) => void;
}

/**
 * Runs the demonstration guest behind a vhost-user socket; it boots anew whenever it is connected.
 * @throws SystemError socket: the path cannot be listened on
 */
export function runGuestProcess(options: GuestProcessOptions): GuestConnection {
  const { socket, mode, profile, onAttached, onError } = options;
  return new EmulatedGuest({ profile, onError })[mode](socket, { onAttached, onError });
}
