import { OutputQueue } from "../output-queue.ts";
import type { Service, ServiceContext } from "../service.ts";

const PROMPT = "demo# ";
const LONGEST_LINE = 256;
/** Senders whose lines are kept apart; beyond that the oldest starts afresh. */
const MOST_SESSIONS = 256;
/** Cost of the output that waits for buffers. */
const MOST_OUTPUT = 64 * 1024;

interface Session {
  /** What is typed of the line. */
  line: string;
  /** The key before: the two of a line's end, \r and \n, are one. */
  last: string;
}

/**
 * A small line shell behind a terminal: it echoes what is typed, edits with backspace, and runs a line at its end.
 * As on a tty, output has no message boundaries: it is cut at the longest message.
 */
export function tty(context: ServiceContext): Service {
  const sessions = new Map<number, Session>();
  const output = new OutputQueue(context);
  const started = performance.now();

  const sessionOf = (src: number): Session => {
    let session = sessions.get(src);
    if (session === undefined) {
      const [oldest] = sessions.keys();
      if (sessions.size >= MOST_SESSIONS && oldest !== undefined) sessions.delete(oldest);
      session = { line: "", last: "" };
      sessions.set(src, session);
    }
    return session;
  };
  const print = (dst: number, text: string): void => {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += context.mtu)
      output.push(dst, bytes.subarray(at, at + context.mtu));
  };
  const run = (line: string): string => {
    const [command = "", ...rest] = line.trim().split(/\s+/);
    switch (command) {
      case "":
        return "";
      case "help":
        return "commands: help, echo TEXT, uptime, uname, whoami\r\n";
      case "echo":
        return `${rest.join(" ")}\r\n`;
      case "uptime":
        return `up ${((performance.now() - started) / 1000).toFixed(1)} s\r\n`;
      case "uname":
        return `rpmsg-bridge emulated guest, profile ${context.guest}\r\n`;
      case "whoami":
        return `endpoint ${context.address}\r\n`;
      default:
        return `${command}: command not found\r\n`;
    }
  };

  return {
    onMessage(src, bytes, offset, length) {
      // Not before the last answer is out: the sender is held up, not the guest's memory filled.
      if (output.cost > MOST_OUTPUT && !output.flush()) return false;
      const session = sessionOf(src);
      let { line } = session;
      let shown = "";
      // Characters, not UTF-16 units: a backspace takes a whole one.
      for (const key of Array.from(Buffer.from(bytes.subarray(offset, offset + length)).toString())) {
        const second = key === "\n" && session.last === "\r";
        session.last = key;
        if (second) continue;
        if (key === "\r" || key === "\n") {
          shown += `\r\n${run(line)}${PROMPT}`;
          line = "";
        } else if (key === "\u0003") {
          shown += `^C\r\n${PROMPT}`;
          line = "";
        } else if (key === "\u007f" || key === "\b") {
          if (line !== "") shown += "\b \b";
          line = Array.from(line).slice(0, -1).join("");
        } else if (key >= " " && line.length < LONGEST_LINE) {
          line += key;
          shown += key;
        }
      }
      session.line = line;
      if (shown !== "") print(src, shown);
      return true;
    },
    onWritable: () => output.flush(),
    close() {
      sessions.clear();
      output.clear();
    },
  };
}
