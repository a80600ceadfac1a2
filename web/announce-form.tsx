import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import type { Endpoint, EndpointDeclaration } from "../schemas/index.ts";
import { announce, withdraw } from "./api.ts";
import { Refused, TroubleNote } from "./parts.tsx";
import { printableName } from "./payload.ts";
import { refusalOf, useAccess } from "./rights.ts";
import { endpointAddress } from "./route.ts";
import type { Trouble } from "./trouble.ts";
import { troubleOf } from "./trouble.ts";

const modes = {
  down: "the host, to the guest",
  both: "the host; the guest has the other half",
  up: "the guest, to the host",
  none: "nobody: the addresses are agreed on",
} as const;

/** Declares a service of the host. */
export function AnnounceForm({ guest }: { guest: string }): JSX.Element {
  const made = useSignal<Endpoint | undefined>(undefined);
  const trouble = useSignal<Trouble | undefined>(undefined);
  const name = useSignal("");
  const address = useSignal("");
  const ns = useSignal<keyof typeof modes>("down");
  const may = useAccess(guest);
  const refused = refusalOf(may, "announce");
  // The guest's own address is nobody's to choose.
  const refusedAddress = ns.value === "up" ? undefined : refusalOf(may, "admin");
  const submit = async (): Promise<void> => {
    const declaration: Partial<EndpointDeclaration> = {
      name: name.value,
      ns: ns.value,
      ...(address.value.trim() !== "" && { address: Number(address.value) }),
    };
    try {
      made.value = await announce(guest, declaration);
      trouble.value = undefined;
      name.value = "";
      address.value = "";
    } catch (error) {
      made.value = undefined;
      trouble.value = troubleOf(error);
    }
  };
  return (
    <section aria-labelledby="announce">
      <h2 id="announce">Announce a host service</h2>
      <Refused reason={refused} id="announce-refused" />
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <label class="field">
          Name
          <input
            required
            maxLength={31}
            autocomplete="off"
            placeholder="rpmsg-raw"
            disabled={refused !== undefined}
            value={name}
            onInput={({ currentTarget }) => {
              name.value = currentTarget.value;
            }}
          />
        </label>
        <label class="field">
          Address (optional)
          <input
            pattern="\d+|0x[0-9a-fA-F]+"
            autocomplete="off"
            placeholder="1040 or 0x410"
            disabled={(refused ?? refusedAddress) !== undefined}
            title={refusedAddress}
            value={address}
            onInput={({ currentTarget }) => {
              address.value = currentTarget.value;
            }}
          />
        </label>
        <label class="field">
          Who announces it
          <select
            disabled={refused !== undefined}
            value={ns}
            onChange={({ currentTarget }) => {
              ns.value = currentTarget.value as keyof typeof modes;
            }}
          >
            {Object.entries(modes).map(([mode, text]) => (
              <option key={mode} value={mode}>
                {mode}: {text}
              </option>
            ))}
          </select>
        </label>
        <button
          type="submit"
          disabled={refused !== undefined}
          aria-describedby={refused === undefined ? undefined : "announce-refused"}
        >
          Announce
        </button>
      </form>
      <TroubleNote trouble={trouble.value} />
      <p role="status">
        {made.value !== undefined && (
          <>
            Announced <a href={endpointAddress(made.value.path)}>{printableName(made.value.name)}</a>.
          </>
        )}
      </p>
    </section>
  );
}

/**
 * Withdraws a service of the host, asked twice.
 * @param refused why it may not
 */
export function Withdraw({
  endpoint,
  refused,
}: {
  endpoint: Endpoint;
  refused: string | undefined;
}): JSX.Element {
  const asked = useSignal(false);
  const trouble = useSignal<Trouble | undefined>(undefined);
  const go = async (): Promise<void> => {
    try {
      await withdraw(endpoint);
      location.hash = "#/";
    } catch (error) {
      trouble.value = troubleOf(error);
      asked.value = false;
    }
  };
  const ask = (value: boolean) => (): void => {
    asked.value = value;
  };
  return (
    <>
      {asked.value ? (
        <span class="confirm">
          Its clients are closed.
          <button type="button" class="danger" onClick={() => void go()}>
            Withdraw for good
          </button>
          <button type="button" class="quiet" onClick={ask(false)}>
            Keep it
          </button>
        </span>
      ) : (
        <button
          type="button"
          class="quiet"
          disabled={refused !== undefined}
          aria-describedby={refused === undefined ? undefined : "withdraw-refused"}
          onClick={ask(true)}
        >
          Withdraw
        </button>
      )}
      <Refused reason={refused} id="withdraw-refused" />
      <TroubleNote trouble={trouble.value} />
    </>
  );
}
