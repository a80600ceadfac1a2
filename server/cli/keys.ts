import type { Channel } from "./channel.ts";
import { Talk } from "./talk.ts";
import { rawTerminal } from "./terminal.ts";

/** Ctrl-], as telnet and others have it. */
const LEAVE = 0x1d;
/** Bytes of a message where the guest's buffers are not known yet. */
const CUSTOMARY_MTU = 496;

/**
 * Bytes as they come, in pieces that fit the guest's buffers. On a terminal every key goes to the guest when it is
 * pressed, ctrl-c too, and ctrl-] leaves.
 */
export async function talkInKeys(channel: Channel): Promise<void> {
  const { stdin } = process;
  const talk = new Talk(channel);
  const most = channel.hello.mtu || CUSTOMARY_MTU;
  const restore = stdin.isTTY ? rawTerminal() : undefined;
  talk.raw = stdin.isTTY;
  talk.greet("ctrl-]");
  try {
    talk.listen((bytes) => talk.show(bytes));
    await new Promise<void>((leave) => {
      channel.closed.then(leave, leave);
      stdin.once("end", leave);
      stdin.on("data", (data: Buffer) => {
        const end = stdin.isTTY ? data.indexOf(LEAVE) : -1;
        const bytes = end === -1 ? data : data.subarray(0, end);
        for (let at = 0; at < bytes.length; at += most) talk.send(bytes.subarray(at, at + most));
        if (end !== -1) return leave();
        // A terminal is read always: the key that leaves has to be seen.
        if (stdin.isTTY) return;
        stdin.pause();
        void channel.room().then(() => stdin.resume());
      });
    });
    await talk.finish(() => channel.unsettled);
  } finally {
    restore?.();
    // What follows starts on a line of its own.
    if (restore !== undefined) process.stderr.write("\n");
  }
}
