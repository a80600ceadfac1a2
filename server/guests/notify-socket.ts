import { errnoName, sendDatagram } from "../../rpmsg/index.ts";

/**
 * Sends a message to the service manager.
 * @throws Error that says why not; also where there is no native code
 */
export function notify(socket: string, message: string): void {
  const result = sendDatagram(socket, Buffer.from(message));
  if (result < 0) throw new Error(`cannot send to ${socket}: ${errnoName(result)}`);
}
