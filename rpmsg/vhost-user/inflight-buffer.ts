import { FrontendError, SystemError } from "../errors.ts";
import type { MappedFile } from "../memory/mapped-file.ts";
import { mapFile } from "../memory/mapped-file.ts";
import { errnoName } from "../posix/errno.ts";
import { createMemory } from "../posix/shared-memory.ts";
import { closeFd } from "../posix/unix-socket.ts";
import { InflightRegion, inflightSize } from "../virtqueue/inflight.ts";
import { isQueueSize } from "../virtqueue/layout.ts";
import type { VhostUserMessage } from "./connection.ts";
import type { InflightMessage } from "./messages.ts";
import { readInflight } from "./messages.ts";

/** Bytes: 128 times what two of the largest queues take, and what one view can hold. */
const MAX_BUFFER = 2 ** 27;

/** For a hand-over: plain data, with a descriptor of the process that gives it. */
export type InflightSnapshot = InflightMessage & { readonly fd: number };

/**
 * The buffer in which the chains in flight of all queues are marked. The frontend keeps its file too, and brings it to
 * the next backend when this one dies.
 */
export class InflightBuffer {
  /** As in the messages. */
  readonly description: InflightMessage;
  readonly #file: MappedFile;

  private constructor(file: MappedFile, description: InflightMessage) {
    this.#file = file;
    this.description = description;
  }

  /**
   * GET_INFLIGHT_FD: a new buffer, of queues as the message says.
   * @throws FrontendError inflight-queues, SystemError
   */
  static create(message: VhostUserMessage, queueCount: number): InflightBuffer {
    const { queues, entries } = readInflight(message.payload);
    checkQueues(queues, entries, queueCount);
    const size = queues * inflightSize(entries);
    const fd = createMemory("rpmsg-inflight", size);
    if (fd < 0) throw new SystemError("socket", `cannot make an in-flight buffer: ${errnoName(fd)}`);
    return new InflightBuffer(mapFile(fd, 0, size), { size, offset: 0, queues, entries });
  }

  /**
   * SET_INFLIGHT_FD: the buffer of a backend before.
   * @throws FrontendError inflight-queues, memory-range, memory-map, descriptor-count
   */
  static take(message: VhostUserMessage, queueCount: number): InflightBuffer {
    const fd = message.takeFd();
    if (fd === undefined)
      throw new FrontendError("descriptor-count", "SET_INFLIGHT_FD came without a descriptor");
    const description = readInflight(message.payload);
    const { queues, entries, size, offset } = description;
    try {
      checkQueues(queues, entries, queueCount);
      const needed = queues * inflightSize(entries);
      if (size < needed || size > MAX_BUFFER) {
        throw new FrontendError(
          "inflight-queues",
          `${queues} queues of ${entries} entries in a buffer of ${size} bytes, which takes ${needed}`,
        );
      }
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    return new InflightBuffer(mapFile(fd, offset, size), description);
  }

  /**
   * The buffer of another process; the descriptor is this one's, and taken.
   * @throws FrontendError memory-range, memory-map
   */
  static restore({ fd, ...description }: InflightSnapshot): InflightBuffer {
    return new InflightBuffer(mapFile(fd, description.offset, description.size), description);
  }

  snapshot(): InflightSnapshot {
    return { ...this.description, fd: this.fd };
  }

  /** The frontend cannot truncate the file. */
  get sealed(): boolean {
    return this.#file.sealed;
  }

  /** The file, open until `close`. */
  get fd(): number {
    return this.#file.fd;
  }

  /**
   * The region of a queue; undefined where the buffer has none for it.
   * @throws FrontendError inflight-queues: the queue has more entries than its region
   */
  region(queue: number, size: number): InflightRegion | undefined {
    const { queues, entries } = this.description;
    const [window] = this.#file.windows;
    if (queue >= queues || window === undefined) return undefined;
    if (size > entries) {
      throw new FrontendError(
        "inflight-queues",
        `a queue of ${size} entries and an in-flight buffer for ${entries}`,
      );
    }
    return new InflightRegion(window.buffer, queue * inflightSize(entries), entries);
  }

  /** Nothing is in flight, and nothing is known of any queue. */
  clear(): void {
    for (const { buffer } of this.#file.windows) new Uint8Array(buffer).fill(0);
  }

  close(): void {
    this.#file.close();
  }
}

/** Both numbers make up an allocation and offsets into it (CVE-2021-3839). */
function checkQueues(queues: number, entries: number, queueCount: number): void {
  if (queues === 0 || queues > queueCount) {
    throw new FrontendError("inflight-queues", `an in-flight buffer for ${queues} queues of ${queueCount}`);
  }
  if (!isQueueSize(entries)) {
    throw new FrontendError("inflight-queues", `an in-flight buffer for queues of ${entries} entries`);
  }
}
