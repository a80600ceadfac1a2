import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import type { Guest } from "../schemas/index.ts";
import { AnnounceForm } from "./announce-form.tsx";
import { EndpointTable } from "./endpoint-table.tsx";
import { number } from "./format.ts";
import { qemuLines } from "./lines.ts";
import { endpoints, guests, link } from "./live.ts";
import { CopyLine, Facts, StateMark } from "./parts.tsx";

/** How full both rings are: what is taken of the response queue, and what waits in the request queue. */
export function Occupancy({ guest: { queues, waiting } }: { guest: Guest }): JSX.Element {
  if (queues === null || waiting === null) return <span class="dim">–</span>;
  return (
    <span class="rings">
      <Ring name="to guest" full={Math.max(queues.response - waiting.response, 0)} size={queues.response} />
      <Ring name="from guest" full={waiting.request} size={queues.request} />
    </span>
  );
}

function Ring({ name, full, size }: { name: string; full: number; size: number }): JSX.Element {
  return (
    <span class="ring" title={`${name}: ${full} of ${size} buffers hold a message`}>
      <meter min={0} max={size} value={full} aria-label={`ring ${name}`} />
      <span>{name}</span> {full}/{size}
    </span>
  );
}

export function GuestPage({ name }: { name: string }): JSX.Element {
  const guest = guests.value.find((each) => each.name === name);
  if (guest === undefined) {
    return (
      <>
        <h1>{name}</h1>
        <p class="hint">
          {link.value === "loading"
            ? "Loading…"
            : "There is no such guest, or the token may not see it. The "}
          {link.value !== "loading" && <a href="#/">overview</a>}
          {link.value !== "loading" && " has those that there are."}
        </p>
      </>
    );
  }
  const { kind, state, generation, features, queues, mtu, counters } = guest;
  return (
    <>
      <header class="title">
        <h1>{name}</h1>
        <StateMark state={state} />
      </header>
      <section aria-label="About this guest">
        <Facts
          facts={[
            ["kind", kind],
            ["generation", number(generation)],
            ["longest message", `${number(mtu)} bytes`],
            [
              "queues",
              queues === null ? "–" : `response ${queues.response}, request ${queues.request} entries`,
            ],
            ["rings", <Occupancy key="rings" guest={guest} />],
            ["features", features === null ? "–" : features.join(" ")],
          ]}
        />
        <h2>Counters</h2>
        <Facts
          facts={Object.entries(counters).map(([key, value]) => [spaced(key), number(value)] as const)}
        />
      </section>
      <EndpointTable all={endpoints.value.filter((each) => each.guest === name)} withGuest={false} />
      <AnnounceForm guest={name} />
      {kind === "vhost-user" && <Attach guest={guest} />}
    </>
  );
}

/** `bytesToGuest` as words. */
export function spaced(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** The bridge does not tell where its sockets are: whoever has configured it knows, and writes it here. */
export function Attach({ guest }: { guest: Guest }): JSX.Element {
  const path = useSignal("");
  const placeholder = `/path/to/${guest.name}.sock`;
  return (
    <section aria-labelledby="attach">
      <h2 id="attach">Attach a virtual machine</h2>
      <label class="field">
        Socket of this guest, as configured
        <input
          placeholder={placeholder}
          value={path}
          onInput={({ currentTarget }) => {
            path.value = currentTarget.value;
          }}
        />
      </label>
      {path.value === "" && (
        <p class="hint">
          The bridge tells nobody where its sockets are: {placeholder} stands below for the path of this one,
          which is in its configuration, or in the --guest of its command line.
        </p>
      )}
      {qemuLines(guest, path.value || placeholder).map((line) => (
        <CopyLine key={line.title} line={line} />
      ))}
    </section>
  );
}
