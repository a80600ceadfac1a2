import type { Endpoint, Guest, Origin } from "../../schemas/index.ts";
import { explain } from "./advice.ts";
import type { ClientFlags } from "./client.ts";
import { getGuest, listEndpoints } from "./client.ts";
import { CommandError } from "./command-error.ts";
import { parseReference, referenceOf } from "./reference.ts";
import { alignedLines, bold, printable } from "./terminal.ts";

interface InfoFlags extends ClientFlags {
  origin?: Origin;
}

/** Shows all that is known of an endpoint and its guest, or of a guest alone. */
export async function info(what: string, flags: InfoFlags): Promise<void> {
  const name = what.includes("/") ? parseReference(what).guest : what;
  const guest = await getGuest(name, flags);
  const endpoint = what.includes("/") ? await findEndpoint(what, flags) : undefined;
  if (flags.json === true) {
    console.log(JSON.stringify({ ...(endpoint && { endpoint }), guest }));
    return;
  }
  if (endpoint !== undefined) console.log(`${endpointLines(endpoint).join("\n")}\n`);
  console.log(guestLines(guest).join("\n"));
}

/** The endpoint that the bridge would connect to: the oldest where several fit. */
async function findEndpoint(what: string, flags: InfoFlags): Promise<Endpoint> {
  const { guest, id, name, address } = parseReference(what);
  const found = (await listEndpoints(flags, { guest, name })).find(
    (each) =>
      (id === undefined || each.id === id) &&
      (address === undefined || each.address === address) &&
      (flags.origin === undefined || each.origin === flags.origin),
  );
  if (found !== undefined) return found;
  const endpoint = what.slice(guest.length + 1);
  throw new CommandError(explain(`guest "${guest}" has no endpoint "${endpoint}"`, "endpoint-unknown"));
}

function endpointLines(endpoint: Endpoint): string[] {
  const { id, path, origin, ns, state, generation, mtu, clients } = endpoint;
  return [
    bold(`endpoint ${referenceOf(endpoint)}`),
    ...table({
      ...{ id, name: printable(endpoint.name), path, origin, ns },
      address: addressText(endpoint.address),
      peer: addressText(endpoint.peer),
      ...{ state, generation, mtu: `${mtu} bytes`, clients },
      ...endpoint.counters,
    }),
  ];
}

function guestLines({
  name,
  kind,
  state,
  generation,
  features,
  queues,
  waiting,
  mtu,
  counters,
}: Guest): string[] {
  return [
    bold(`guest ${name}`),
    ...table({
      ...{ kind, state, generation, features: features?.join(", ") || "-" },
      queues: queues === null ? "-" : `response ${queues.response}, request ${queues.request} entries`,
      waiting:
        waiting == null ? "-" : `${waiting.response} free buffers, ${waiting.request} messages of the guest`,
      mtu: `${mtu} bytes`,
      ...counters,
    }),
  ];
}

function table(values: Record<string, string | number>): string[] {
  return alignedLines(Object.entries(values).map(([key, value]) => [`  ${key}`, String(value)]));
}

function addressText(address: number | null): string {
  return address === null ? "-" : `${address} (0x${address.toString(16)})`;
}
