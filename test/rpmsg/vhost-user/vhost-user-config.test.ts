import { describe, expect, test } from "vitest";
import { request } from "../../../rpmsg/vhost-user/messages.ts";
import { titled, unsupported } from "../posix/support.ts";
import { useSessions } from "../support/vhost-user-session.ts";

function configRequest(offset: number, size: number, flags = 0): Buffer {
  const payload = Buffer.alloc(12 + Math.min(size, 256));
  payload.writeUInt32LE(offset, 0);
  payload.writeUInt32LE(size, 4);
  payload.writeUInt32LE(flags, 8);
  return payload;
}

describe.skipIf(unsupported !== undefined)(titled("the configuration space"), () => {
  const open = useSessions();

  describe("GET_CONFIG", () => {
    const bufferSizes = { txBufferSize: 0x0102_0304, rxBufferSize: 512 };
    // u8 version 1; u16 size 11; u32 tx; u32 rx
    const space = Buffer.from([1, 11, 0, 0x04, 0x03, 0x02, 0x01, 0x00, 0x02, 0x00, 0x00]);

    test("with F_BUFSZ: the space, whole and in pieces", async () => {
      const session = open({ backend: { bufferSizes } });
      expect((await session.barrier()) & 2n).toBe(2n);
      await session.features(undefined, 0x1_4000_0003n);
      for (const [offset, size] of [
        [0, 11],
        [3, 4],
        [10, 1],
        [11, 0],
      ] as const) {
        const reply = await session.ask(request.GET_CONFIG, configRequest(offset, size, 1));
        expect([reply.readUInt32LE(0), reply.readUInt32LE(4), reply.readUInt32LE(8)]).toEqual([
          offset,
          size,
          1,
        ]);
        expect(reply.subarray(12)).toEqual(space.subarray(offset, offset + size));
      }
    });

    test.each([
      [0, 12],
      [1, 11],
      [11, 1],
      [0xffff_ffff, 1],
      [0xffff_fff5, 11],
      [0, 0xffff_ffff],
    ])("beyond the space, %i and %i bytes: an answer without bytes", async (offset, size) => {
      const session = open({ backend: { bufferSizes } });
      const reply = await session.ask(request.GET_CONFIG, configRequest(offset, size));
      expect([reply.length, reply.readUInt32LE(4)]).toEqual([12, 0]);
    });

    test("without F_BUFSZ there is no space", async () => {
      const session = open();
      expect((await session.barrier()) & 2n).toBe(0n);
      const reply = await session.ask(request.GET_CONFIG, configRequest(0, 11));
      expect([reply.length, reply.readUInt32LE(4)]).toEqual([12, 0]);
    });

    test("SET_CONFIG changes nothing", async () => {
      const session = open({ backend: { bufferSizes } });
      await session.features();
      expect(await session.tell(request.SET_CONFIG, configRequest(0, 11))).not.toBe(0);
      const reply = await session.ask(request.GET_CONFIG, configRequest(0, 11));
      expect(reply.subarray(12)).toEqual(space);
    });
  });
});
