import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import type { Endpoint } from "../schemas/index.ts";
import { address, byteRate, number, rate } from "./format.ts";
import { traffic } from "./live.ts";
import { Spark, StateMark } from "./parts.tsx";
import { printableName } from "./payload.ts";
import { endpointAddress, guestAddress } from "./route.ts";

/** Rows at a time: a guest may announce very many. */
const MOST_ROWS = 200;

/** Messages that did not come through, for whatever reason. */
export function lostOf({ counters }: Pick<Endpoint, "counters">): number {
  return counters.dropped + counters.noClient + counters.undelivered + counters.unconfirmed;
}

/** Endpoints, live. */
export function EndpointTable({
  all,
  withGuest,
}: {
  all: readonly Endpoint[];
  withGuest: boolean;
}): JSX.Element {
  const filter = useSignal("");
  const wanted = filter.value.trim().toLowerCase();
  const matching = all.filter(({ guest, name, path }) =>
    `${guest}/${name} ${path}`.toLowerCase().includes(wanted),
  );
  const rows = matching.slice(0, MOST_ROWS);
  return (
    <section aria-labelledby="endpoints">
      <header class="bar">
        <h2 id="endpoints">Endpoints</h2>
        <span class="count">{number(all.length)}</span>
        {all.length > rows.length && (
          <span class="hint">
            showing {number(rows.length)} of {number(all.length)}
          </span>
        )}
        <input
          type="search"
          placeholder="Filter"
          aria-label="Filter endpoints"
          value={filter}
          onInput={({ currentTarget }) => {
            filter.value = currentTarget.value;
          }}
        />
      </header>
      {rows.length === 0 ? (
        <p class="hint">
          {all.length === 0
            ? "No endpoints yet. A guest announces its own; announce one of the host on the guest's page."
            : "None like that."}
        </p>
      ) : (
        <table class="rows">
          <thead>
            <tr>
              <th scope="col">Endpoint</th>
              <th scope="col">State</th>
              <th scope="col" class="wide">
                Origin
              </th>
              <th scope="col" class="wide">
                Address
              </th>
              <th scope="col" class="n wide">
                Clients
              </th>
              <th scope="col" class="n">
                Messages/s
              </th>
              <th scope="col" class="wide">
                <span class="hidden">The last minute</span>
              </th>
              <th scope="col" class="n wide">
                Bytes/s
              </th>
              <th scope="col" class="n">
                Drops
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((endpoint) => (
              <Row key={endpoint.id} endpoint={endpoint} withGuest={withGuest} />
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Row({ endpoint, withGuest }: { endpoint: Endpoint; withGuest: boolean }): JSX.Element {
  const { id, guest, name, path, state, origin, clients } = endpoint;
  const { rates = {}, recent = [] } = traffic.value.get(id) ?? {};
  const both = (rates["messagesFromGuest"] ?? 0) + (rates["messagesToGuest"] ?? 0);
  const bytes = (rates["bytesFromGuest"] ?? 0) + (rates["bytesToGuest"] ?? 0);
  const lost = lostOf(endpoint);
  return (
    <tr>
      <th scope="row">
        {withGuest && (
          <>
            <a class="dim" href={guestAddress(guest)}>
              {guest}
            </a>
            <span class="dim">/</span>
          </>
        )}
        <a href={endpointAddress(path)} title={path}>
          {printableName(name)}
        </a>
      </th>
      <td>
        <StateMark state={state} />
      </td>
      <td class="wide">{origin}</td>
      <td class="wide">{address(endpoint.address)}</td>
      <td class="n wide">{number(clients)}</td>
      <td class="n">{rate(both)}</td>
      <td class="wide">
        <Spark values={recent} />
      </td>
      <td class="n wide">{byteRate(bytes)}</td>
      <td class={lost > 0 ? "n warn" : "n"}>{number(lost)}</td>
    </tr>
  );
}
