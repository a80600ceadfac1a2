import type { JSX } from "preact";
import { Chart } from "./chart.tsx";
import { EndpointTable } from "./endpoint-table.tsx";
import { byteRate, duration, rate } from "./format.ts";
import { Occupancy } from "./guest-page.tsx";
import { bytes, endpoints, guests, latency, latencyTrouble, link, messages, ticks } from "./live.ts";
import { StateMark } from "./parts.tsx";
import { guestAddress } from "./route.ts";

/** All guests and endpoints, and what goes on. */
export function Overview(): JSX.Element {
  const version = ticks.value;
  return (
    <>
      <h1 class="hidden">Overview</h1>
      <section class="charts" aria-label="The last five minutes">
        <Chart
          title="Messages/s"
          lines={["from guests", "to guests"]}
          columns={messages.columns}
          version={version}
          label={rate}
        />
        <Chart
          title="Bytes/s"
          lines={["from guests", "to guests"]}
          columns={bytes.columns}
          version={version}
          label={byteRate}
        />
        <div>
          <Chart
            title="Latency"
            lines={["median", "99 %"]}
            columns={latency.columns}
            version={version}
            label={duration}
          />
          {latencyTrouble.value !== undefined && (
            <p class="hint">
              Of the bridge's metrics, which need a token with the right admin for */*. (
              {latencyTrouble.value.code})
            </p>
          )}
        </div>
      </section>
      <GuestTable />
      <EndpointTable all={endpoints.value} withGuest />
    </>
  );
}

function GuestTable(): JSX.Element {
  const all = guests.value;
  return (
    <section aria-labelledby="guests">
      <header class="bar">
        <h2 id="guests">Guests</h2>
        <span class="count">{all.length}</span>
      </header>
      {all.length === 0 ? (
        <p class="hint">{link.value === "loading" ? "Loading…" : "No guests that this token may see."}</p>
      ) : (
        <table class="rows">
          <thead>
            <tr>
              <th scope="col">Guest</th>
              <th scope="col">State</th>
              <th scope="col" class="n">
                Generation
              </th>
              <th scope="col">Rings</th>
              <th scope="col" class="wide">
                Kind
              </th>
              <th scope="col" class="wide">
                Features
              </th>
            </tr>
          </thead>
          <tbody>
            {all.map((guest) => (
              <tr key={guest.name}>
                <th scope="row">
                  <a href={guestAddress(guest.name)}>{guest.name}</a>
                </th>
                <td>
                  <StateMark state={guest.state} />
                </td>
                <td class="n">{guest.generation}</td>
                <td>
                  <Occupancy guest={guest} />
                </td>
                <td class="wide">{guest.kind}</td>
                <td class="wide dim">{guest.features?.join(" ") ?? "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
