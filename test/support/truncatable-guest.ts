import { ftruncateSync, openSync } from "node:fs";
import {
  bits,
  connectUnix,
  encodeNameService,
  feature,
  mappedRegion,
  Poller,
  RPMSG_F_NS,
  VhostUserFrontend,
} from "../../rpmsg/index.ts";
import { DriverRings } from "../rpmsg/support/device-driver.ts";

const BASE = 0x4000_0000;
const SIZE = 64 * 4096;

/**
 * A guest whose memory is a file that cannot be sealed: it may shrink at any time. It announces a service, and nobody
 * in this process touches its memory after `truncate`.
 */
export class TruncatableGuest {
  readonly #file: number;
  readonly #rings: DriverRings;
  readonly #frontend: VhostUserFrontend;
  readonly #poller = new Poller();
  readonly #unmap: () => void;
  /** Settled when the connection is over. */
  readonly closed: Promise<void>;

  /** @param file made, or emptied, for its memory */
  private constructor(path: string, file: string) {
    this.#file = openSync(file, "w+");
    ftruncateSync(this.#file, SIZE);
    const region = mappedRegion(this.#file, 0, BASE, BASE, SIZE);
    // Closes the file too.
    this.#unmap = () => region.close();
    this.#rings = new DriverRings(region);
    const fd = connectUnix(path);
    if (fd < 0) throw new Error(`cannot connect: ${fd}`);
    let gone: () => void = () => {};
    this.closed = new Promise((resolve) => {
      gone = resolve;
    });
    this.#frontend = new VhostUserFrontend(
      fd,
      this.#poller,
      {
        features: bits(RPMSG_F_NS, feature.VERSION_1),
        memory: [{ guestAddress: BASE, userAddress: BASE, size: SIZE, fileOffset: 0, fd: this.#file }],
        vrings: this.#rings.rings.map((addresses) => ({ size: 16, addresses })),
      },
      { onCall() {}, onClose: () => gone() },
    );
  }

  static async attach(path: string, service: string, file: string): Promise<TruncatableGuest> {
    const guest = new TruncatableGuest(path, file);
    await guest.#frontend.negotiate();
    for (let i = 0; i < 16; i++) guest.#rings.post(512);
    await guest.#frontend.start();
    guest.#frontend.kick(0);
    guest.#rings.offer(1024, 53, encodeNameService({ name: service, address: 1024, created: true }));
    guest.#frontend.kick(1);
    return guest;
  }

  truncate(): void {
    ftruncateSync(this.#file, 0);
  }

  kick(): void {
    this.#frontend.kick(1);
  }

  close(): void {
    this.#frontend.close();
    this.#unmap();
    this.#poller.close();
  }
}
