/** A mistake in the configuration; `key` names where. */
export class ConfigError extends Error {
  readonly code = "config";
  readonly key: string;

  constructor(key: string, reason: string) {
    super(`${key}: ${reason}`);
    this.name = "ConfigError";
    this.key = key;
  }
}
