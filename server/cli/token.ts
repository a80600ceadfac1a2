import { hashOf, newToken } from "../access/credentials.ts";
import { CommandError, exitCode } from "./command-error.ts";

/**
 * Makes a token: it is shown on standard error, this once, and what the configuration has of it goes to standard output,
 * so that a file of the latter has no secret. What it may do is for whoever writes the configuration to say.
 */
export function token({ name, another, json }: { name: string; another?: boolean; json?: boolean }): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) {
    throw new CommandError(`--name: "${name}" cannot be the name of a token`, exitCode.usage);
  }
  const made = newToken();
  const hash = `sha256:${hashOf(made).toString("hex")}`;
  if (json === true) {
    console.log(JSON.stringify({ token: made, name, hash }));
    return;
  }
  console.error(
    `The token, which is shown here only:\n\n  ${made}\n\nFor the configuration, where it gets its rights:\n`,
  );
  console.log(
    [
      ...(another === true ? [] : ["tokens:"]),
      `  - name: ${JSON.stringify(name)}`,
      `    hash: ${hash}`,
      "    # expires: 2027-01-31T12:00:00Z",
      '    rights: # GUEST/ENDPOINT, * for any characters of a part, as "vm0/*" or "*/*"',
      "      list: []",
      "      read: []",
      "      write: []",
      "      announce: []",
      "      admin: []",
    ].join("\n"),
  );
}
