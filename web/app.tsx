import { effect, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { EndpointPage } from "./endpoint-page.tsx";
import { clock } from "./format.ts";
import { GuestPage } from "./guest-page.tsx";
import { eventsTrouble, giveToken, hearing, link, linkTrouble, lookedAt, self } from "./live.ts";
import { Overview } from "./overview.tsx";
import { StateMark, TroubleNote } from "./parts.tsx";
import { followAddress, route, titleOf } from "./route.ts";
import type { Trouble } from "./trouble.ts";

followAddress();
effect(() => {
  document.title = titleOf(route.value);
});

const linkWords = { loading: "connecting", asking: "token needed", live: "live", lost: "no answer" } as const;

export function App(): JSX.Element {
  return (
    <>
      <button type="button" class="skip" onClick={skip}>
        Skip to the content
      </button>
      <header class="top">
        <a class="brand" href="#/">
          rpmsg<b>-</b>bridge
        </a>
        <nav aria-label="Pages">
          <a href="#/" aria-current={route.value.page === "overview" ? "page" : undefined}>
            Overview
          </a>
          <a href="docs">API</a>
        </nav>
        <Identity />
        <span role="status">
          <StateMark state={link.value === "live" && !hearing.value ? "no events" : linkWords[link.value]} />
        </span>
      </header>
      <main id="main" tabIndex={-1}>
        {link.value === "asking" ? (
          <SignIn />
        ) : (
          <>
            <TroubleNote trouble={linkTrouble.value ?? eventsTrouble.value} />
            <Age />
            <Page />
          </>
        )}
      </main>
    </>
  );
}

/** Who the page is to the bridge, where that makes a difference. */
function Identity(): JSX.Element | null {
  if (self.value === undefined || link.value === "asking") return null;
  const { token: name, expires, readOnly } = self.value;
  return (
    <span class="identity">
      {readOnly && <span class="pill">read-only</span>}
      {name !== null && (
        <span class="dim wide">
          token <b>{name}</b>
          {expires !== null && <> until {clock(Date.parse(expires)).slice(0, 5)}</>}
        </span>
      )}
    </span>
  );
}

/** Of when all is that is shown, where it is not of now. */
function Age(): JSX.Element | null {
  if (link.value !== "lost" || lookedAt.value === undefined) return null;
  return (
    <p class="hint stale">
      All that is shown here is of {clock(lookedAt.value).slice(0, 8)}, and may be otherwise by now.
    </p>
  );
}

function skip(): void {
  document.querySelector<HTMLElement>("#main")?.focus();
}

function Page(): JSX.Element {
  const now = route.value;
  if (now.page === "guest") return <GuestPage key={now.guest} name={now.guest} />;
  if (now.page === "endpoint") return <EndpointPage key={now.path} path={now.path} tab={now.tab} />;
  return <Overview />;
}

/** Takes a token, of which a session is kept. */
function SignIn(): JSX.Element {
  const field = useSignal("");
  const refused = useSignal<Trouble | undefined>(undefined);
  const submit = async (): Promise<void> => {
    refused.value = await giveToken(field.value.trim());
    if (refused.value === undefined) field.value = "";
  };
  return (
    <section class="signin">
      <h1>This bridge asks for a token</h1>
      <p>Open the address that the bridge printed when it started, which works once, or give a token:</p>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <label class="field">
          Token
          <input
            type="password"
            autocomplete="off"
            required
            value={field}
            onInput={({ currentTarget }) => {
              field.value = currentTarget.value;
            }}
          />
        </label>
        <button type="submit">Open</button>
      </form>
      <TroubleNote trouble={refused.value ?? linkTrouble.value} />
    </section>
  );
}
