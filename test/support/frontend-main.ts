/**
 * The process of a vhost-user frontend, made to be killed: `frontend-main.js SOCKET`. It loads all that it needs, then
 * says `ready`, attaches an emulated guest when it is told anything, and says `attached`.
 */
import { EmulatedGuest } from "../../guest/index.ts";
import { Poller } from "../../rpmsg/index.ts";

const [, , socket = ""] = process.argv;
// Loads the native code: that is no part of an attachment.
new Poller().close();

process.once("message", () => {
  new EmulatedGuest().connect(socket, { onAttached: () => process.send?.("attached"), onError: () => {} });
});
process.once("disconnect", () => process.exit());
process.send?.("ready");
