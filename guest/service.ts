/** What a service of an emulated guest may do. */
export interface ServiceContext {
  /** The endpoint's own address. */
  readonly address: number;
  /** Longest message, in bytes. */
  readonly mtu: number;
  /** Profile of the guest, for people to read. */
  readonly guest: string;
  /**
   * Sends to an address.
   * @returns false when no buffer is free: `onWritable` is called when one is
   */
  send(dst: number, bytes: Uint8Array, offset?: number, length?: number): boolean;
}

/** One endpoint of an emulated guest. */
export interface Service {
  /**
   * A message arrived; `bytes` is valid during the call only.
   * @returns false when it cannot be taken now: the guest takes no more messages until a buffer is free, and this one
   *   comes again
   */
  onMessage(src: number, bytes: Uint8Array, offset: number, length: number): boolean;
  /** A transmit buffer is free again. */
  onWritable?(): void;
  close?(): void;
}

export type ServiceFactory = (context: ServiceContext) => Service;
