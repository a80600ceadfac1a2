import type { Origin } from "../../schemas/index.ts";

/** What the interface of a capture is about. */
export interface InterfaceFacts {
  readonly guest: string;
  /** For people, as it is listed; undefined for what of the guest is no endpoint's. */
  readonly endpoint: string | undefined;
  readonly origin: Origin | undefined;
}

/** The name and the description of an interface: `GUEST/ENDPOINT`, or `GUEST`. */
export function interfaceTexts(
  { guest, endpoint, origin = "guest" }: InterfaceFacts,
  address: number | undefined,
): { name: string; description: string } {
  if (endpoint === undefined) {
    return { name: guest, description: `guest ${guest}: name service, and what is for no endpoint` };
  }
  const description = `endpoint of the ${origin}, address ${address ?? "unknown"}`;
  return { name: `${guest}/${endpoint}`, description };
}

/** The same, read back. */
export function interfaceFacts({ name, description }: { name: string; description: string }): InterfaceFacts {
  const [, guest = "", endpoint] = /^([^/]*)(?:\/(.*))?$/s.exec(name) ?? [];
  const origin = /^endpoint of the (guest|host), /.exec(description)?.[1];
  return { guest, endpoint, origin: origin as Origin | undefined };
}

/** The address of the endpoint, where it was known. */
export function interfaceAddress({ description }: { description: string }): number | undefined {
  const digits = /^endpoint of the (?:guest|host), address (\d+)$/.exec(description)?.[1];
  return digits === undefined ? undefined : Number(digits);
}
