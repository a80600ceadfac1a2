import { HEADER_SIZE } from "../rpmsg/index.ts";

/**
 * How the driver side differs between the implementations in use. Each field changes what the guest does on the
 * rings or on the wire.
 */
export interface Profile {
  readonly name: ProfileName;
  /** Entries of each queue. */
  readonly queueSize: number;
  /** Buffers of each direction, at most `queueSize`. */
  readonly bufferCount: number;
  /** Bytes of a buffer, the header included. */
  readonly bufferSize: number;
  /** Dynamic addresses, both inclusive; all implementations take the lowest free one. */
  readonly addresses: readonly [first: number, last: number];
  /** What the header's `reserved` holds. */
  readonly reserved: "zero" | "buffer-index";
  /** Whether transmit buffers that were never used go before those that came back. */
  readonly transmitOrder: "fresh-first" | "used-first";
  /** What becomes of a message longer than a buffer. */
  readonly tooLong: "refuse" | "truncate";
  /**
   * What an announcement of the host does: Linux makes a new device for it; open-amp binds the endpoint of that
   * name that has no destination yet, else tells the application; rpmsg-lite always tells the application.
   */
  readonly hostAnnouncement: "new-device" | "bind-by-name" | "application";
  /** What a message whose length does not fit its buffer does: Linux leaves its receive loop and loses the buffer. */
  readonly badLength: "lose-buffer" | "skip";
}

export type ProfileName = "linux" | "openamp" | "rpmsg-lite";

export const profiles: Readonly<Record<ProfileName, Profile>> = {
  // drivers/rpmsg/virtio_rpmsg_bus.c
  linux: {
    name: "linux",
    queueSize: 256,
    bufferCount: 256,
    bufferSize: 512,
    addresses: [1024, 0x7fff_ffff],
    reserved: "zero",
    transmitOrder: "fresh-first",
    tooLong: "refuse",
    hostAnnouncement: "new-device",
    badLength: "lose-buffer",
  },
  // open-amp, lib/rpmsg/rpmsg_virtio.c in the role RPMSG_HOST
  openamp: {
    name: "openamp",
    queueSize: 16,
    bufferCount: 16,
    bufferSize: 512,
    addresses: [1024, 1151],
    reserved: "buffer-index",
    transmitOrder: "used-first",
    tooLong: "truncate",
    hostAnnouncement: "bind-by-name",
    badLength: "skip",
  },
  // rpmsg-lite, lib/rpmsg_lite/rpmsg_lite.c in the role RPMSG_LITE_MASTER
  "rpmsg-lite": {
    name: "rpmsg-lite",
    queueSize: 8,
    bufferCount: 8,
    bufferSize: 512,
    addresses: [1, 0x7fff_ffff],
    reserved: "buffer-index",
    transmitOrder: "used-first",
    tooLong: "refuse",
    hostAnnouncement: "application",
    badLength: "skip",
  },
};

/**
 * How many bytes of a message of `length` bytes go into a buffer. Linux: -EMSGSIZE for a longer one; open-amp's copying
 * send cuts it without a word.
 * @throws RangeError where the profile refuses it
 */
export function payloadLength(profile: Profile, length: number): number {
  const longest = profile.bufferSize - HEADER_SIZE;
  if (length <= longest) return length;
  if (profile.tooLong === "refuse") throw new RangeError(`a message of ${length} bytes is too long`);
  return longest;
}
