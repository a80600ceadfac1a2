import { RpmsgError } from "../client/index.ts";
import { errorAdvice } from "../schemas/errors.ts";

/** What went wrong, for people: what, its code, and what to do. */
export interface Trouble {
  readonly text: string;
  readonly code: string;
  /** Empty where there is nothing to say. */
  readonly advice: string;
}

/** For codes of the client's own, and where the page can say more than the bridge does. */
const adviceHere: Record<string, string> = {
  unreachable:
    "See whether the bridge runs, and whether its address is the one of this page. The page tries again.",
  refused: "See in the list whether another client has the endpoint for itself.",
  "connection-lost": "The page connects again. Send again what may come twice.",
  unauthorized:
    "Open the address that the bridge printed when it started, which works once, or give a token.",
  forbidden: "Open the page with a token that has the right.",
  "bad-request": "Mend what the text names.",
  "endpoint-unknown": "Look for it in the list: it may have been withdrawn.",
  "guest-unknown": "Look for it in the list.",
  "rate-limited": "Wait a little: the page asks again.",
};

export function troubleOf(error: unknown): Trouble {
  if (!(error instanceof RpmsgError)) {
    return { text: error instanceof Error ? error.message : String(error), code: "page", advice: "" };
  }
  const { code, message } = error;
  const general = Object.hasOwn(errorAdvice, code) ? errorAdvice[code as keyof typeof errorAdvice] : "";
  return { text: message, code, advice: adviceHere[code] ?? general };
}

/** A part of the page did not come. A browser does not ask for it again until the page is loaded anew. */
export function notLoaded(what: string): Trouble {
  return {
    text: `${what} could not be loaded.`,
    code: "page",
    advice: "Reload this page: the bridge may have been updated, or could not be reached.",
  };
}

/** Whether the bridge wants a credential that this page has not got. */
export function isUnauthorized(error: unknown): boolean {
  return error instanceof RpmsgError && error.code === "unauthorized";
}
