import { z } from "zod";
import { Address, ServiceName } from "./identity.ts";

/**
 * Which side announces an endpoint. none: nobody, the addresses are agreed on; down: the host to the guest; up: the
 * guest to the host; both: the host does, and what the guest announces under this name is the other half of it.
 */
export const NameServiceMode = z.enum(["none", "down", "up", "both"]);
export type NameServiceMode = z.infer<typeof NameServiceMode>;

/** An endpoint that the host declares. */
export const EndpointDeclaration = z
  .strictObject({
    name: ServiceName,
    ns: NameServiceMode.default("down"),
    /** The bridge's own address; with ns up, the guest's. The bridge picks or takes any where there is none. */
    address: Address.optional(),
    /** With ns none: the guest's address; without it that of the guest's first message. */
    peer: Address.optional(),
    /** With ns up: the local address of clients that name none. */
    local: Address.optional(),
  })
  .superRefine(({ ns, address, peer, local }, context) => {
    const issue = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    if (ns === "none" && address === undefined) issue("address", "an endpoint with ns none needs an address");
    if (ns !== "none" && peer !== undefined) issue("peer", "only an endpoint with ns none has a peer");
    if (ns !== "up" && local !== undefined) issue("local", "only an endpoint with ns up has a local address");
  });
export type EndpointDeclaration = z.infer<typeof EndpointDeclaration>;
