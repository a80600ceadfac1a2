import { existsSync, readFileSync } from "node:fs";
import { parseListen } from "../config/flags.ts";
import { loadConfig } from "../config/load-config.ts";
import { count } from "./terminal.ts";

/**
 * Says whether `serve` would take the file as its only source of configuration.
 * @throws ConfigError that names the key
 */
export function checkConfig(file: string, { json }: { json?: boolean }): void {
  const config = loadConfig({ config: file }, {});
  parseListen(config.listen);
  const guests = Object.values(config.guests);
  const endpoints = guests.reduce((sum, guest) => sum + guest.endpoints.length, 0);
  if (json === true) console.log(JSON.stringify({ file, guests: guests.length, endpoints }));
  else console.log(`${file} is fine: ${count(guests.length, "guest")}, ${count(endpoints, "endpoint")}`);
}

/** Prints the package's example. */
export function printExample(): void {
  process.stdout.write(readFileSync(packageFile("rpmsg-bridge.example.yaml")));
}

/** A file of the package: in a folder above this one, nearer in a checkout than in dist/. */
function packageFile(name: string): URL {
  for (const folder of ["../../", "../../../"]) {
    const file = new URL(folder + name, import.meta.url);
    if (existsSync(file)) return file;
  }
  throw new Error(`${name} is missing from the package`);
}
