import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { missingTool } from "../../support/missing-tool.ts";

const DISSECTOR = fileURLToPath(new URL("../../../docs/wireshark/rpmsg.lua", import.meta.url));

/** Why tests with tshark cannot run; undefined where they can. */
export const noTshark = missingTool("tshark");

async function tshark(file: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(
    "tshark",
    ["-X", `lua_script:${DISSECTOR}`, "-r", file, ...args],
    { maxBuffer: 2 ** 28 },
  );
  return stdout;
}

/** Fields of all packets, as Wireshark has them: one object a packet, what is not there is "". */
export async function dissect<Field extends string>(
  file: string,
  fields: readonly Field[],
  filter = "",
): Promise<Record<Field, string>[]> {
  const wanted = fields.flatMap((field) => ["-e", field]);
  const out = await tshark(file, ["-Y", filter, "-T", "fields", "-E", "separator=/t", ...wanted]);
  return out
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const values = line.split("\t");
      return Object.fromEntries(fields.map((field, i) => [field, values[i] ?? ""])) as Record<Field, string>;
    });
}

/** The lines of the packet list. */
export async function packetList(file: string): Promise<string[]> {
  return (await tshark(file, [])).split("\n").filter((line) => line !== "");
}
