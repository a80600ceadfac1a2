/**
 * The device configuration space of virtio-rpmsg, which exists with the F_BUFSZ dialect of Linux (2026) only:
 * `u8 version (1); u16 size; u32 txbuf_size; u32 rxbuf_size`, packed, little endian. tx and rx are the device's view.
 */
const DEVICE_CONFIG_SIZE = 11;

const offsetOf = { version: 0, size: 1, txBufferSize: 3, rxBufferSize: 7 } as const;
const VERSION = 1;

export interface DeviceConfig {
  /** Bytes of a buffer that the device sends in (the driver's receive buffers), header included. */
  txBufferSize: number;
  /** Bytes of a buffer that the device receives in (the driver's transmit buffers), header included. */
  rxBufferSize: number;
}

export function encodeDeviceConfig(config: DeviceConfig): Uint8Array {
  const bytes = Buffer.alloc(DEVICE_CONFIG_SIZE);
  bytes.writeUInt8(VERSION, offsetOf.version);
  bytes.writeUInt16LE(DEVICE_CONFIG_SIZE, offsetOf.size);
  bytes.writeUInt32LE(config.txBufferSize, offsetOf.txBufferSize);
  bytes.writeUInt32LE(config.rxBufferSize, offsetOf.rxBufferSize);
  return bytes;
}

/** @returns undefined when the space is shorter than 11 bytes or its version is not 1. */
export function decodeDeviceConfig(bytes: Uint8Array): DeviceConfig | undefined {
  if (bytes.length < DEVICE_CONFIG_SIZE || bytes[offsetOf.version] !== VERSION) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    txBufferSize: view.getUint32(offsetOf.txBufferSize, true),
    rxBufferSize: view.getUint32(offsetOf.rxBufferSize, true),
  };
}
