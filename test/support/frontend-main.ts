/**
 * The process of a vhost-user frontend, made to be killed: `frontend-main.js SOCKET`. It says `ready`, attaches an
 * emulated guest when it is told to, and says `attached`. Told `{ messages }` it kills itself with SIGKILL on its way there,
 * right behind so many messages to the backend.
 */
import { EmulatedGuest } from "../../guest/index.ts";
import { openTransport, Poller, RpmsgDevice, VhostUserBackend } from "../../rpmsg/index.ts";
import { VhostUserConnection } from "../../rpmsg/vhost-user/connection.ts";

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

process.once("message", (told: "attach" | { messages: number }) => {
  let onAttached = (): void => void process.send?.("attached");
  if (told !== "attach") {
    const die = (): void => void process.kill(process.pid, "SIGKILL");
    let left = told.messages;
    const send = Reflect.get(VhostUserConnection.prototype, "send");
    VhostUserConnection.prototype.send = function (...message) {
      send.apply(this, message);
      if (--left === 0) die();
    };
    // It took fewer.
    onAttached = die;
  }
  new EmulatedGuest().connect(socket, { onAttached, onError: () => {} });
});
process.once("disconnect", () => process.exit());
process.send?.("ready");
