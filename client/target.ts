const CHANNELS = "/ws/v1/";

/**
 * Completes a URL; in a browser it may be relative to the page.
 * @throws TypeError
 */
function absolute(target: string | URL): URL {
  const { location } = globalThis as { location?: { href: string } };
  let url: URL;
  try {
    url = new URL(target, location?.href);
  } catch {
    throw new TypeError(
      `"${String(target)}" is not the URL of a bridge: want http://HOST:PORT or ws://HOST:PORT`,
    );
  }
  if (!/^(?:http|ws)s?:$/.test(url.protocol)) throw new TypeError(`want http: or ws:, not ${url.protocol}`);
  url.hash = "";
  return url;
}

/** The bridge's root, with a slash at its end: a bridge may be below a path of another server. */
export function baseOf(target: string | URL): URL {
  const url = absolute(target);
  url.protocol = url.protocol.replace("ws", "http");
  url.search = "";
  const at = url.pathname.indexOf(CHANNELS);
  if (at !== -1) url.pathname = url.pathname.slice(0, at);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/** What to connect to, where the URL does not say it. */
export interface Place {
  /** The guest's name; the URL is the bridge's then. */
  guest?: string;
  /** Name of an endpoint of that guest. Where several have it, use the `path` of the one that is meant as URL. */
  endpoint?: string;
  /** Instead of an endpoint: the name of a service that this channel is to be, for as long as it lives. */
  announce?: string;
}

/**
 * The URL of a channel.
 * @throws TypeError
 */
export function channelUrl(target: string | URL, { guest, endpoint, announce }: Place): URL {
  let url = absolute(target);
  if (guest !== undefined) {
    const path = endpoint === undefined ? "" : `/${nameInPath(endpoint)}`;
    url = new URL(`.${CHANNELS}${encodeURIComponent(guest)}${path}`, baseOf(url));
  }
  if (announce !== undefined) url.searchParams.set("announce", announce);
  if (!url.pathname.includes(CHANNELS)) {
    throw new TypeError(`${url.href} names no endpoint: want /ws/v1/GUEST/ENDPOINT, or { guest, endpoint }`);
  }
  url.protocol = url.protocol.replace("http", "ws");
  return url;
}

/** `~` and `@` have a meaning of their own in these paths. */
function nameInPath(name: string): string {
  return encodeURIComponent(name).replaceAll("~", "%7E");
}

/** Guest and endpoint in the path of a channel; the endpoint is as it stands there, `~` and `@` included. */
export function placeOf(url: URL): { guest: string; endpoint: string | undefined } {
  const [guest = "", endpoint] = url.pathname
    .slice(url.pathname.indexOf(CHANNELS) + CHANNELS.length)
    .split("/");
  return { guest, endpoint };
}
