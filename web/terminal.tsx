import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { repaint } from "./colours.ts";
import { number } from "./format.ts";
import { Refused, TroubleNote } from "./parts.tsx";
import { cut } from "./payload.ts";
import type { Screen } from "./screen.ts";
import type { Talk } from "./talk.ts";
import { notLoaded } from "./trouble.ts";

/** Bytes of what came before that it begins with, at most. */
const MOST_BEFORE = 128 * 1024;

/**
 * A terminal on a channel: every key is a message, as it is on a tty. What draws it is loaded here.
 * @param refused why nothing may be sent: keys do nothing then
 */
export function TerminalView({ talk, refused }: { talk: Talk; refused: string | undefined }): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const screen = useRef<Screen | undefined>(undefined);
  const unseen = useSignal(0);
  const silent = useRef(false);
  silent.current = refused !== undefined;
  useEffect(() => {
    let gone = false;
    let silence = (): void => {};
    const open = async (): Promise<void> => {
      const { Screen: Opened } = await import("./screen.ts");
      if (gone || place.current === null) return;
      const opened = new Opened(place.current, (keys) => {
        if (!silent.current) sendKeys(talk, keys);
      });
      screen.current = opened;
      opened.replay(before(talk));
      silence = talk.onMessage(({ data }) => {
        if (!opened.write(data)) unseen.value += data.length;
      });
      // Who walks along the tabs stays there.
      if (document.activeElement?.getAttribute("role") !== "tab") opened.focus();
    };
    open().catch(() => {
      talk.failure.value = notLoaded("The terminal");
    });
    return () => {
      gone = true;
      silence();
      screen.current?.close();
    };
  }, [talk]);
  const painted = repaint.value;
  useEffect(() => screen.current?.repaint(), [painted]);
  return (
    <>
      <Refused reason={refused} />
      <div class="screen" ref={place} />
      <p class="hint">
        {refused === undefined ? "Keys go to the guest as they are typed." : "Keys go nowhere."} Shift and Tab
        leave the terminal.
        {unseen.value > 0 && ` ${number(unseen.value)} bytes came too fast to be shown.`}
        {talk.dropped.value > 0 &&
          ` ${number(talk.dropped.value)} messages were dropped on their way: more than this page takes.`}
      </p>
      <TroubleNote trouble={talk.failure.value} />
    </>
  );
}

/** What the guest wrote before there was a screen, the latest of it. */
function before({ history }: Talk): Uint8Array[] {
  const written = history.entries().filter(({ kind }) => kind === "from");
  let [first, bytes] = [written.length, 0];
  while (first > 0 && bytes < MOST_BEFORE) bytes += written[--first]?.data.length ?? 0;
  return written.slice(first).map(({ data }) => data);
}

/** What is pasted may be longer than a message. */
function sendKeys(talk: Talk, keys: string): void {
  const bytes = new TextEncoder().encode(keys);
  const most = talk.mtu.value;
  if (most === 0 || bytes.length <= most) void talk.send(keys);
  else for (const piece of cut(bytes, most)) void talk.send(piece);
}
