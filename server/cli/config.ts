import { existsSync, readFileSync } from "node:fs";
import { parseListen } from "../config/flags.ts";
import { loadConfig } from "../config/load-config.ts";
import { CommandError } from "./command-error.ts";
import { count } from "./terminal.ts";

/**
 * Says whether `serve` would take the file as its only source of configuration.
 * @throws ConfigError that names the key
 */
export async function checkConfig(file: string, { json }: { json?: boolean }): Promise<void> {
  const config = await loadConfig({ config: file }, {});
  parseListen(config.listen);
  const guests = Object.values(config.guests);
  const endpoints = guests.reduce((sum, guest) => sum + guest.endpoints.length, 0);
  if (json === true) console.log(JSON.stringify({ file, guests: guests.length, endpoints }));
  else console.log(`${file} is fine: ${count(guests.length, "guest")}, ${count(endpoints, "endpoint")}`);
}

/** Prints the package's example. */
export function printExample(): void {
  process.stdout.write(readFileSync(exampleFile()));
}

/** Where the example is: nearer in the sources than in dist/. */
export function exampleFile(): URL {
  for (const root of ["../../", "../../../"]) {
    const file = new URL(`${root}rpmsg-bridge.example.yaml`, import.meta.url);
    if (existsSync(file)) return file;
  }
  throw new CommandError("the example is missing from the package");
}
