import { accessSync, constants } from "node:fs";
import type { Browser } from "playwright-core";
import { chromium } from "playwright-core";
import { vi } from "vitest";

// A page is drawn in seconds where the machine is busy: for every file with a browser.
vi.setConfig({ testTimeout: 60_000 });

/** Where Debian has it. */
const PATH = "/usr/bin/chromium";

/** Why there is no browser here; undefined where there is one. */
export function missingBrowser(): string | undefined {
  try {
    accessSync(PATH, constants.X_OK);
    return undefined;
  } catch {
    return `no ${PATH}: apt-get install chromium`;
  }
}

export function launchBrowser(): Promise<Browser> {
  // Containers have no user namespaces, and /dev/shm of 64 MiB.
  return chromium.launch({ executablePath: PATH, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
}
