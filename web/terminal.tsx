import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { repaint } from "./colours.ts";
import { number } from "./format.ts";
import { TroubleNote } from "./parts.tsx";
import type { Screen } from "./screen.ts";
import type { Talk } from "./talk.ts";

/** A terminal on a channel: every key is a message, as it is on a tty. What draws it is loaded here. */
export function TerminalView({ talk }: { talk: Talk }): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const screen = useRef<Screen | undefined>(undefined);
  const unseen = useSignal(0);
  useEffect(() => {
    let gone = false;
    let silence = (): void => {};
    void import("./screen.ts").then(({ Screen: Opened }) => {
      if (gone || place.current === null) return;
      const opened = new Opened(place.current, (keys) => void talk.send(keys));
      screen.current = opened;
      silence = talk.onMessage(({ data }) => {
        if (!opened.write(data)) unseen.value += data.length;
      });
      opened.focus();
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
      <div class="screen" ref={place} />
      <p class="hint">
        Keys go to the guest as they are typed. Shift and Tab leave the terminal.
        {unseen.value > 0 && ` ${number(unseen.value)} bytes came too fast to be shown.`}
      </p>
      <TroubleNote trouble={talk.failure.value} />
    </>
  );
}
