import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX, TargetedKeyboardEvent } from "preact";
import { useEffect } from "preact/hooks";
import type { Endpoint } from "../schemas/index.ts";
import { Withdraw } from "./announce-form.tsx";
import { Console } from "./console.tsx";
import { lostOf } from "./endpoint-table.tsx";
import { address, byteRate, number, rate } from "./format.ts";
import { Attach, spaced } from "./guest-page.tsx";
import { endpointLines } from "./lines.ts";
import { endpoints, guests, isService, link, traffic } from "./live.ts";
import { CopyLine, Facts, Refused, StateMark, TroubleNote } from "./parts.tsx";
import { printable, printableName } from "./payload.ts";
import { Plot } from "./plot.tsx";
import { refusalOf, useAccess } from "./rights.ts";
import type { Tab } from "./route.ts";
import { changeView, guestAddress, tabs } from "./route.ts";
import { bridge, token } from "./session.ts";
import { Talk } from "./talk.ts";
import { TerminalView } from "./terminal.tsx";

/** What the services of the emulated guest are best looked at with. */
const isTerminal = (name: string): boolean => /tty|console|shell/i.test(name);
const isSensor = (endpoint: Endpoint): boolean => isService(endpoint, "sensor");

export function EndpointPage({ path, tab }: { path: string; tab: Tab | undefined }): JSX.Element {
  const endpoint = endpoints.value.find((each) => each.path === path);
  // What it was, while its guest is away.
  const last = useSignal(endpoint);
  if (endpoint !== undefined) last.value = endpoint;
  const shown = endpoint ?? last.value;
  if (shown === undefined) {
    return (
      <>
        <h1>{printable(path)}</h1>
        {link.value === "loading" ? (
          <p class="hint">Loading…</p>
        ) : (
          <p class="hint">
            There is no such endpoint now. It may have been withdrawn, or its guest be reset: the{" "}
            <a href="#/">overview</a> has those that there are.
          </p>
        )}
      </>
    );
  }
  return <Known endpoint={shown} gone={endpoint === undefined} tab={tab} />;
}

function Known({
  endpoint,
  gone,
  tab,
}: {
  endpoint: Endpoint;
  gone: boolean;
  tab: Tab | undefined;
}): JSX.Element {
  const { guest, id, name, path, origin, state } = endpoint;
  const may = useAccess(guest, id);
  const [unread, unsent] = [refusalOf(may, "read"), refusalOf(may, "write")];
  const talk = useSignal<Talk | undefined>(undefined);
  useEffect(() => {
    const opened = new Talk(path);
    talk.value = opened;
    // A sensor would send for ever: it does not know who listens.
    const last = isSensor(endpoint) ? "stop" : undefined;
    const leave = (): void => {
      if (last !== undefined) void opened.leave(last);
    };
    addEventListener("pagehide", leave);
    return () => {
      removeEventListener("pagehide", leave);
      void opened.close(last);
    };
  }, [path]);
  const initial = isTerminal(name) ? "terminal" : isSensor(endpoint) ? "plot" : "console";
  const current = tab ?? initial;
  return (
    <>
      <header class="title">
        <h1>
          <a class="dim" href={guestAddress(guest)}>
            {guest}
          </a>
          <span class="dim">/</span>
          {printableName(name)}
        </h1>
        <StateMark state={gone ? "gone" : state} />
        {origin === "host" && !gone && <Withdraw endpoint={endpoint} refused={refusalOf(may, "announce")} />}
      </header>
      <About endpoint={endpoint} />
      <Tabs path={path} current={current}>
        {talk.value === undefined ? null : (
          <>
            <Refused reason={unread} />
            <Connection talk={talk.value} />
            {current === "console" && <Console talk={talk.value} refused={unsent} />}
            {current === "terminal" && <TerminalView talk={talk.value} refused={unsent} />}
            {current === "plot" && (
              <Plot
                talk={talk.value}
                start={isSensor(endpoint) ? "start 10" : undefined}
                settled={may !== undefined}
                refused={unsent}
              />
            )}
            {current === "connect" && <Connect endpoint={endpoint} refused={unsent} />}
          </>
        )}
      </Tabs>
    </>
  );
}

/**
 * How others get to the endpoint, and to its guest, where that is a virtual machine.
 * @param refused why whoever has this page's token cannot send
 */
function Connect({ endpoint, refused }: { endpoint: Endpoint; refused: string | undefined }): JSX.Element {
  const guest = guests.value.find(({ name }) => name === endpoint.guest);
  return (
    <>
      <Refused reason={refused} />
      {endpointLines(endpoint, bridge, token.value !== undefined).map((line) => (
        <CopyLine key={line.title} line={line} />
      ))}
      {guest?.kind === "vhost-user" && <Attach guest={guest} />}
    </>
  );
}

function About({ endpoint }: { endpoint: Endpoint }): JSX.Element {
  const { id, origin, ns, peer, generation, mtu, clients, counters, path } = endpoint;
  const rates = traffic.value.get(id)?.rates ?? {};
  const flow = (messages: string, bytes: string): string =>
    `${rate(rates[messages])} messages/s, ${byteRate(rates[bytes])}/s`;
  return (
    <section aria-label="About this endpoint">
      <Facts
        facts={[
          ["from the guest", flow("messagesFromGuest", "bytesFromGuest")],
          ["to the guest", flow("messagesToGuest", "bytesToGuest")],
          ["clients", number(clients)],
          ["drops", number(lostOf(endpoint))],
          ["address", address(endpoint.address)],
          ["peer", address(peer)],
          ["origin", `${origin}, name service ${ns}`],
          ["generation", number(generation)],
          ["longest message", `${number(mtu)} bytes`],
          ["path", <code key="path">{path}</code>],
        ]}
      />
      <details>
        <summary>All counters</summary>
        <Facts
          facts={[
            ["id", id],
            ...Object.entries(counters).map(([key, value]) => [spaced(key), number(value)] as const),
          ]}
        />
      </details>
    </section>
  );
}

/** The channel of this page, where it is not simply open. */
function Connection({ talk }: { talk: Talk }): JSX.Element | null {
  const now = talk.connection.value;
  if (now === "open") return null;
  return (
    <div class="connection">
      <span role="status">
        {now === "closed" ? "Not connected." : now === "connecting" ? "Connecting…" : "Connecting again…"}
      </span>
      {now === "closed" && (
        <button type="button" onClick={() => void talk.open()}>
          Connect
        </button>
      )}
      <TroubleNote trouble={talk.trouble.value} />
    </div>
  );
}

function Tabs({
  path,
  current,
  children,
}: {
  path: string;
  current: Tab;
  children: ComponentChildren;
}): JSX.Element {
  const go = (tab: Tab): void => changeView(path, tab);
  const move = ({ key, currentTarget }: TargetedKeyboardEvent<HTMLElement>): void => {
    const step = key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    const all = [...currentTarget.querySelectorAll<HTMLElement>("[role=tab]")];
    // From the one that has the keys: the address, and so what is shown, follows a fast hand later.
    const from = all.indexOf(document.activeElement as HTMLElement);
    const at = (from + step + tabs.length) % tabs.length;
    go(tabs[at] as Tab);
    all[at]?.focus();
  };
  return (
    <>
      <div class="tabs" role="tablist" aria-label="Views" onKeyDown={move}>
        {tabs.map((tab) => (
          <button
            key={tab}
            type="button"
            role="tab"
            id={`tab-${tab}`}
            aria-selected={tab === current}
            aria-controls="view"
            tabIndex={tab === current ? 0 : -1}
            onClick={() => go(tab)}
          >
            {tab}
          </button>
        ))}
      </div>
      <section id="view" role="tabpanel" aria-labelledby={`tab-${current}`}>
        {children}
      </section>
    </>
  );
}
