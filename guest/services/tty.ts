import type { Service, ServiceContext } from "../service.ts";

const PROMPT = "demo# ";
const LONGEST_LINE = 256;
/** Senders whose lines are kept apart; beyond that the oldest starts afresh. */
const MOST_SESSIONS = 256;
/** Bytes of output that wait for buffers. */
const MOST_OUTPUT = 64 * 1024;

/**
 * A small line shell behind a terminal: it echoes what is typed, edits with backspace, and runs a line at its end.
 * As on a tty, output has no message boundaries: it is cut at the longest message.
 */
export function tty(context: ServiceContext): Service {
  const lines = new Map<number, string>();
  /** Output that found no buffer, in order. */
  const output: { dst: number; bytes: Buffer }[] = [];
  let waiting = 0;
  const started = performance.now();

  const flush = (): boolean => {
    for (let first = output[0]; first !== undefined; first = output[0]) {
      if (!context.send(first.dst, first.bytes)) return false;
      waiting -= first.bytes.length;
      output.shift();
    }
    return true;
  };
  const print = (dst: number, text: string): void => {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += context.mtu) {
      const part = bytes.subarray(at, at + context.mtu);
      waiting += part.length;
      output.push({ dst, bytes: part });
    }
    flush();
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
      if (waiting > MOST_OUTPUT && !flush()) return false;
      let line = lines.get(src) ?? "";
      if (!lines.has(src) && lines.size >= MOST_SESSIONS) {
        const [oldest] = lines.keys();
        if (oldest !== undefined) lines.delete(oldest);
      }
      let shown = "";
      const typed = Buffer.from(bytes.subarray(offset, offset + length)).toString();
      for (const [i, key] of [...typed].entries()) {
        if (key === "\n" && typed[i - 1] === "\r") continue;
        if (key === "\r" || key === "\n") {
          shown += `\r\n${run(line)}${PROMPT}`;
          line = "";
        } else if (key === "\u0003") {
          shown += `^C\r\n${PROMPT}`;
          line = "";
        } else if (key === "\u007f" || key === "\b") {
          if (line !== "") shown += "\b \b";
          line = [...line].slice(0, -1).join("");
        } else if (key >= " " && line.length < LONGEST_LINE) {
          line += key;
          shown += key;
        }
      }
      lines.set(src, line);
      if (shown !== "") print(src, shown);
      return true;
    },
    onWritable: flush,
    close() {
      lines.clear();
      output.length = 0;
      waiting = 0;
    },
  };
}
