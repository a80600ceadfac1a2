import type { ConfigInput, Right } from "../../schemas/index.ts";
import { hashOf, newToken } from "../../server/access/credentials.ts";

type TokenInput = NonNullable<ConfigInput["tokens"]>[number];

/** A token of a test, and what the configuration has of it. */
export interface TestToken {
  readonly token: string;
  readonly config: TokenInput;
  /** The head of a request that shows it. */
  readonly headers: { authorization: string };
}

/**
 * @param rights patterns of endpoints, by right
 * @param expires milliseconds since 1970
 */
export function testToken(
  name: string,
  rights: Partial<Record<Right, string[]>>,
  expires?: number,
  token = newToken(),
): TestToken {
  return {
    token,
    config: {
      name,
      hash: `sha256:${hashOf(token).toString("hex")}`,
      rights,
      ...(expires !== undefined && { expires: new Date(expires).toISOString() }),
    },
    headers: { authorization: `Bearer ${token}` },
  };
}

/** One that may do everything with all endpoints. */
export function allRights(name = "all"): TestToken {
  const all = ["*/*"];
  return testToken(name, { list: all, read: all, write: all, announce: all, admin: all });
}
