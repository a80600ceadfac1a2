import type { ZodError } from "zod";
import { Config } from "../../schemas/index.ts";
import { ConfigError } from "./config-error.ts";

/**
 * Checks a configuration and fills in the defaults.
 * @throws ConfigError that names the key
 */
export function checkConfig(input: unknown): Config {
  const checked = Config.safeParse(input);
  if (!checked.success) throw describe(checked.error);
  const { listen, handover } = checked.data;
  if (handover !== undefined && listen.startsWith("localhost:")) {
    throw new ConfigError(
      "listen",
      "localhost may be two addresses, of which one can be handed over: with handover, want one such as 127.0.0.1:8080",
    );
  }
  return checked.data;
}

/** The first issue, with the path of its key. */
function describe(error: ZodError): ConfigError {
  const [issue] = error.issues;
  const path = issue?.path.map(String) ?? [];
  if (issue?.code === "unrecognized_keys")
    return new ConfigError([...path, ...issue.keys].join("."), "unknown key");
  if (issue?.code === "invalid_key") {
    return new ConfigError(path.join("."), issue.issues[0]?.message ?? "not a valid key");
  }
  return new ConfigError(path.join(".") || "configuration", issue?.message ?? "not understood");
}
