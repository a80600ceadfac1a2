/**
 * The process of a vhost-user frontend, made to be killed: `frontend-main.js SOCKET`. It says `ready`, attaches an
 * emulated guest when it is told anything, and says `attached`.
 */
import { EmulatedGuest } from "../../guest/index.ts";
import { openTransport, Poller, RpmsgDevice, VhostUserBackend } from "../../rpmsg/index.ts";

/**
 * Attaches once, to a backend of its own. A virtual machine monitor is compiled: that the code of this one is loaded
 * and runs for the first time is no part of an attachment to the bridge.
 */
async function rehearse(path: string): Promise<void> {
  const poller = new Poller();
  const device = new RpmsgDevice();
  const bridge = openTransport(
    "listen",
    path,
    poller,
    (fd, closed) => new VhostUserBackend(fd, poller, device, { onClose: closed }),
    (error) => {
      throw error;
    },
  );
  const connection = new EmulatedGuest().connect(path);
  await connection.attached();
  connection.close();
  bridge.close();
  device.close();
}

const [, , socket = ""] = process.argv;
await rehearse(`${socket}.${process.pid}`);

process.once("message", () => {
  new EmulatedGuest().connect(socket, { onAttached: () => process.send?.("attached"), onError: () => {} });
});
process.once("disconnect", () => process.exit());
process.send?.("ready");
