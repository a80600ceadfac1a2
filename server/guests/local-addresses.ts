import { RpmsgError } from "../../rpmsg/index.ts";
import type { AttachedEndpoint } from "./attached-endpoint.ts";
import type { Attachment } from "./attachment.ts";
import { LocalAddress } from "./local-address.ts";

/** Local addresses of one guest that channels or services have. */
export class LocalAddresses {
  readonly #attachment: Attachment;
  readonly #all = new Map<number, LocalAddress>();

  constructor(attachment: Attachment) {
    this.#attachment = attachment;
  }

  get list(): readonly LocalAddress[] {
    return [...this.#all.values()];
  }

  /** The one with this number, where somebody has it. */
  at(address: number): LocalAddress | undefined {
    return this.#all.get(address);
  }

  /** @throws RpmsgError address-in-use, address-invalid, address-space-full */
  make(address: number | undefined, shared: boolean): LocalAddress {
    const local = new LocalAddress(this.#attachment, address, shared, () => this.#all.delete(local.address));
    this.#all.set(local.address, local);
    return local;
  }

  /**
   * The one of a channel to an endpoint.
   * @returns undefined when it is taken
   * @throws RpmsgError address-space-full, address-invalid
   */
  forChannel(
    owner: AttachedEndpoint,
    address: number | undefined,
    shared: boolean,
  ): LocalAddress | undefined {
    const known = address === undefined ? undefined : this.#all.get(address);
    if (known !== undefined) {
      // Who is the only client of an endpoint shares its address with nobody.
      const joinable = shared && known.shared && (known.owner === owner || known.owner?.isExclusive !== true);
      return joinable ? known : undefined;
    }
    try {
      const local = this.make(address, shared);
      local.owner = owner;
      return local;
    } catch (error) {
      if (error instanceof RpmsgError && error.code === "address-in-use") return undefined;
      throw error;
    }
  }

  /** Those that nobody uses are free again. */
  releaseUnused(): void {
    for (const local of this.list) if (local.users === 0) local.release();
  }
}
