import { FrontendError } from "../errors.ts";
import { DirtyLog, LOG_PAGE, PAGES_PER_BYTE } from "../memory/dirty-log.ts";
import type { MappedFile } from "../memory/mapped-file.ts";
import { mapFile } from "../memory/mapped-file.ts";
import { setNonblocking, signalEventfd } from "../posix/eventfd.ts";
import { closeFd } from "../posix/unix-socket.ts";
import type { VhostUserMessage } from "./connection.ts";

/** Bytes: one view, which is a bit a page for the first 32 TiB of guest addresses. */
const MAX_LOG = 2 ** 30;

/** For a hand-over: plain data, with descriptors of the process that gives it. */
export interface LogSnapshot {
  readonly file: { readonly fd: number; readonly fileOffset: number; readonly size: number } | undefined;
  readonly notify: number | undefined;
}

/** The log of a migration: a file that the frontend passes, and an eventfd that tells it of changes. */
export class MigrationLog {
  /** Undefined until the frontend has passed a file. */
  pages: DirtyLog | undefined;
  #file: MappedFile | undefined;
  #notify: number | undefined;
  #notifyScheduled = false;

  /**
   * SET_LOG_BASE
   * @param end guest addresses below this one must have a bit in it
   * @throws FrontendError log-range, memory-range, memory-map, descriptor-count: the log before is still in use
   */
  setBase(message: VhostUserMessage, end: number): void {
    const { payload } = message;
    const fd = message.takeFd();
    if (fd === undefined)
      throw new FrontendError("descriptor-count", "SET_LOG_BASE came without a descriptor");
    const size = Number(payload.getBigUint64(0, true));
    const offset = Number(payload.getBigUint64(8, true));
    if (size > MAX_LOG) {
      closeFd(fd);
      throw new FrontendError("log-range", `a log of ${size} bytes, the most is ${MAX_LOG}`);
    }
    const file = mapFile(fd, offset, size);
    if (size * PAGES_PER_BYTE * LOG_PAGE < end) {
      file.close();
      throw new FrontendError("log-range", `a log of ${size} bytes ends before the guest's memory`);
    }
    this.release();
    this.#use(file);
  }

  /** Whether the frontend cannot truncate the file; undefined where there is none. */
  get sealed(): boolean | undefined {
    return this.#file?.sealed;
  }

  snapshot(): LogSnapshot {
    const file = this.#file;
    return {
      file: file && { fd: file.fd, fileOffset: file.fileOffset, size: file.size },
      notify: this.#notify,
    };
  }

  /**
   * Goes on with the log of another process; the descriptors are this one's, and taken, on errors too.
   * @throws FrontendError memory-range, memory-map
   */
  restore({ file, notify }: LogSnapshot): void {
    this.setNotify(notify);
    if (file !== undefined) this.#use(mapFile(file.fd, file.fileOffset, file.size));
  }

  /** SET_LOG_FD; takes the descriptor. */
  setNotify(fd: number | undefined): void {
    if (this.#notify !== undefined) closeFd(this.#notify);
    // A blocking descriptor that nobody reads would stop the whole process.
    if (fd !== undefined) setNonblocking(fd);
    this.#notify = fd;
  }

  /** The migration is over. */
  release(): void {
    this.pages = undefined;
    this.#file?.close();
    this.#file = undefined;
  }

  close(): void {
    this.release();
    this.setNotify(undefined);
  }

  #use(file: MappedFile): void {
    const [window] = file.windows;
    this.#file = file;
    this.pages = new DirtyLog(new Uint8Array(window?.buffer ?? []), () => this.#marked());
  }

  /** Tells the frontend once for all that is marked in this turn of the event loop. */
  #marked(): void {
    if (this.#notify === undefined || this.#notifyScheduled) return;
    this.#notifyScheduled = true;
    setImmediate(() => {
      this.#notifyScheduled = false;
      if (this.#notify !== undefined) signalEventfd(this.#notify);
    });
  }
}
