import { signal } from "@preact/signals";
import { printableName } from "./payload.ts";

export const tabs = ["console", "terminal", "plot", "connect"] as const;
export type Tab = (typeof tabs)[number];

/** What the page shows: it is in the address, behind the #. */
export type Route =
  | { readonly page: "overview" }
  | { readonly page: "guest"; readonly guest: string }
  /** By its path, which is the same again after a reset of the guest. */
  | { readonly page: "endpoint"; readonly path: string; readonly tab: Tab | undefined };

const CHANNELS = "/ws/v1/";

export function parseRoute(hash: string): Route {
  const [place = "", query] = hash.replace(/^#/, "").split("?");
  const [, guest] = /^\/guests\/([A-Za-z0-9_-]+)$/.exec(place) ?? [];
  if (guest !== undefined) return { page: "guest", guest };
  if (place.startsWith(CHANNELS)) {
    const tab = new URLSearchParams(query).get("view");
    return { page: "endpoint", path: place, tab: tabs.find((each) => each === tab) };
  }
  return { page: "overview" };
}

export function guestAddress(guest: string): string {
  return `#/guests/${guest}`;
}

/** @param path of the endpoint, as it is listed; it is percent-encoded */
export function endpointAddress(path: string, tab?: Tab): string {
  return `#${path}${tab === undefined ? "" : `?view=${tab}`}`;
}

/** What the browser's tab and its history call a place. */
export function titleOf(place: Route): string {
  if (place.page === "overview") return "rpmsg-bridge";
  const what = place.page === "guest" ? place.guest : plain(place.path.slice(CHANNELS.length));
  return `${printableName(what)} · rpmsg-bridge`;
}

function plain(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    // Whoever wrote it by hand wrote a % that is none.
    return encoded;
  }
}

export const route = signal<Route>({ page: "overview" });

function follow(): void {
  route.value = parseRoute(location.hash);
}

/**
 * Goes to another view of a place. It is not left to the event: that comes after all messages that wait, which may be
 * very many.
 */
export function changeView(path: string, tab: Tab): void {
  location.replace(endpointAddress(path, tab));
  follow();
}

export function followAddress(): void {
  addEventListener("hashchange", follow);
  follow();
}
