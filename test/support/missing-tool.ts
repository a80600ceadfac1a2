import { spawnSync } from "node:child_process";

/**
 * Why a test cannot run a program; undefined where it can. Where skipped tests are failures, `.ci/run` installs it.
 * @param from the Debian package that has it
 * @param question the argument that it answers with its version
 */
export function missingTool(name: string, from = name, question = "--version"): string | undefined {
  const { status } = spawnSync(name, [question]);
  return status === 0 ? undefined : `no ${name}: apt-get install ${from}`;
}

/** The title of a test that needs something which may be missing. */
export function titledWith(missing: string | undefined, title: string): string {
  return missing === undefined ? title : `${title} (not here: ${missing})`;
}
