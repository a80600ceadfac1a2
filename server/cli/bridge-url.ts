/** The bridge that is meant where nobody says which. */
export const DEFAULT_URL = "http://127.0.0.1:8080";

/** Where a bridge that listens everywhere is seen from this machine, and from one that publishes a container's port. */
export function nearUrl(url: string): string {
  return url.replace(/\/\/(?:0\.0\.0\.0|\[::\]):/, "//127.0.0.1:");
}
