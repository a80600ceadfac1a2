import type { JSX } from "preact";
import { Chart } from "./chart.tsx";
import { EndpointTable } from "./endpoint-table.tsx";
import { byteRate, duration, rate } from "./format.ts";
import { Occupancy } from "./guest-page.tsx";
import {
  bytes,
  endpoints,
  guests,
  isService,
  latency,
  latencyTrouble,
  link,
  messages,
  ticks,
} from "./live.ts";
import { StateMark } from "./parts.tsx";
import { endpointAddress, guestAddress } from "./route.ts";

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
        <Chart
          title="Latency"
          lines={["median", "99 %"]}
          columns={latency.columns}
          version={version}
          label={duration}
          scale="tens"
        >
          {latencyTrouble.value !== undefined && (
            <p class="hint">
              Of the bridge's metrics, which need a token with the right admin for */*. (
              {latencyTrouble.value.code})
            </p>
          )}
        </Chart>
      </section>
      <FirstSteps />
      <GuestTable />
      <EndpointTable all={endpoints.value} withGuest />
    </>
  );
}

/** Who has just started the emulated guest sees nothing go on: it says nothing before it is asked. */
function FirstSteps(): JSX.Element | null {
  const [sensor, tty] = ["sensor", "tty"].map((name) =>
    endpoints.value.find((each) => isService(each, name)),
  );
  const quiet = endpoints.value.every(({ counters }) => counters.messagesFromGuest === 0);
  if (!quiet || sensor === undefined || tty === undefined) return null;
  return (
    <p class="hint">
      Nothing has been said yet. Live data: open <a href={endpointAddress(sensor.path)}>sensor</a>, which
      draws itself, or <a href={endpointAddress(tty.path)}>tty</a>, a line shell.
    </p>
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
                <td class="wide one">{guest.kind}</td>
                <td class="wide dim">{guest.features?.join(" ") ?? "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
