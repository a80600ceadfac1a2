import { closeSync, constants, fstatSync, ftruncateSync, openSync, rmSync, writeSync } from "node:fs";
import { format, parse } from "node:path";
import type { CapturedItem } from "../capture/pcapng-reader.ts";
import { CaptureCounts } from "./capture-counts.ts";
import { CommandError } from "./command-error.ts";

/** Always at the end: also after a piece of a block was taken back. */
const MODE = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND;

/** What a full disk, or a full quota, or the longest file says. */
const FULL = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

export interface CaptureFileOptions {
  readonly path: string;
  /** Bytes after its head from which on the next file begins; undefined: there is one. */
  readonly fileSize?: number | undefined;
  /** Files that are kept; undefined: all. */
  readonly files?: number | undefined;
  /** Where the disk is full: end, or leave out what does not fit, and go on when there is room. */
  readonly onFull: "stop" | "drop";
  /** Tells people. */
  readonly tell: (text: string) => void;
}

/**
 * Writes a capture to a file, or to several one after another. Whatever happens, what is there is whole blocks, and each
 * file can be read by itself: it begins with the section and its interfaces, and ends with what was counted so far. So
 * does a section behind which another one comes.
 * Where nothing came, a file that was there is what it was, and one that was not is not there.
 */
export class CaptureFile {
  readonly counts = new CaptureCounts();
  readonly #options: CaptureFileOptions;
  /** Blocks that each file needs before its messages; the first `#headWritten` are in this one. */
  #head: Buffer[] = [];
  #headWritten = 0;
  #fd: number | undefined;
  #size = 0;
  /** Of `#size`, what each file needs. */
  #headSize = 0;
  #number = 0;
  #hasMessages = false;
  /** The file was not there before. */
  #made = false;
  /** Something came. */
  #begun = false;
  readonly #paths: string[] = [];
  /** Messages were lost since the last statistics. */
  #untold = false;
  #full = false;

  /** @throws CommandError the file cannot be made */
  constructor(options: CaptureFileOptions) {
    this.#options = options;
    this.#open();
  }

  /** @throws CommandError it cannot be written, or the disk is full */
  write(item: CapturedItem): void {
    if (item.kind === "section") this.#endSection();
    if (!this.#begun) this.#begin();
    const { dropped } = this.counts;
    this.counts.count(item);
    if (item.kind === "section") {
      this.#head = [item.block];
      this.#headWritten = 0;
    } else if (item.kind === "interface") {
      this.#head.push(item.block);
    } else if (item.kind === "message") {
      let written = false;
      try {
        written = this.#message(item.block);
      } finally {
        if (!written) this.counts.lose(item.message.interface.id);
      }
    } else if (this.counts.dropped > dropped) {
      this.#untold = true;
    }
  }

  /** Ends the last file. */
  finish(): void {
    this.#end();
    const [path] = this.#paths;
    if (!this.#begun && this.#made && path !== undefined) rmSync(path, { force: true });
  }

  /** @returns false where the disk is full, and it was left out */
  #message(block: Buffer): boolean {
    const { fileSize } = this.#options;
    if (
      fileSize !== undefined &&
      this.#hasMessages &&
      this.#size - this.#headSize + block.length > fileSize
    ) {
      this.#end();
      this.#open();
      this.#begin();
    }
    const statistics = this.#untold ? this.counts.statistics() : [];
    const written = this.#head.slice(this.#headWritten).every((each) => this.#appendHead(each));
    if (!written || !statistics.every((each) => this.#append(each)) || !this.#append(block)) {
      this.#untold = true;
      return false;
    }
    if (this.#full) this.#options.tell("there is room again: the capture goes on");
    this.#full = false;
    this.#untold = false;
    this.#hasMessages = true;
    return true;
  }

  #open(): void {
    const path = this.#nextPath();
    try {
      this.#fd = this.#openNew(path) ?? openSync(path, MODE);
    } catch (error) {
      throw cannotWrite(path, error);
    }
    this.#size = 0;
    this.#headSize = 0;
    this.#headWritten = 0;
    this.#hasMessages = false;
    this.#paths.push(path);
    const { files } = this.#options;
    while (files !== undefined && this.#paths.length > files)
      rmSync(this.#paths.shift() ?? "", { force: true });
  }

  /** @returns undefined where there is one */
  #openNew(path: string): number | undefined {
    try {
      const fd = openSync(path, MODE | constants.O_EXCL);
      this.#made = true;
      return fd;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      this.#made = false;
      return undefined;
    }
  }

  /** What was in the file before is of no use any more. */
  #begin(): void {
    this.#begun = true;
    const fd = this.#fd;
    if (fd === undefined) return;
    try {
      // A device or a pipe has no length.
      if (fstatSync(fd).isFile()) ftruncateSync(fd);
    } catch (error) {
      throw cannotWrite(this.#path, error);
    }
  }

  /** Of this file. */
  get #path(): string {
    return this.#paths.at(-1) ?? this.#options.path;
  }

  /** Without a size it is the path itself; else a number comes before the extension. */
  #nextPath(): string {
    const { path, fileSize } = this.#options;
    if (fileSize === undefined) return path;
    const { dir, name, ext } = parse(path);
    this.#number++;
    return format({ dir, name: `${name}-${String(this.#number).padStart(5, "0")}`, ext });
  }

  /** What was counted, and the end. */
  #end(): void {
    if (this.#fd === undefined) return;
    this.#endSection();
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** What was counted: nothing follows of this section in this file. */
  #endSection(): void {
    for (const block of this.#head.slice(this.#headWritten)) this.#appendHead(block, true);
    if (this.#headWritten === this.#head.length) {
      for (const block of this.counts.statistics()) this.#append(block, true);
    }
  }

  #appendHead(block: Buffer, last = false): boolean {
    const done = this.#append(block, last);
    if (done) {
      this.#headWritten++;
      this.#headSize += block.length;
    }
    return done;
  }

  /**
   * Writes a block, or nothing of it.
   * @param last the file ends here: nobody needs to know that it did not fit
   * @returns whether it is written
   */
  #append(block: Buffer, last = false): boolean {
    const fd = this.#fd;
    if (fd === undefined) return false;
    const path = this.#path;
    try {
      for (let at = 0; at < block.length; ) at += writeSync(fd, block, at);
      this.#size += block.length;
      return true;
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      try {
        ftruncateSync(fd, this.#size);
      } catch {
        // What is no file of a disk has no length.
      }
      if (last) return false;
      if (!FULL.has(code)) throw cannotWrite(path, error);
      if (this.#options.onFull === "stop") {
        throw new CommandError(`the disk is full (${code}): ${path} is complete up to there`);
      }
      if (!this.#full)
        this.#options.tell(`the disk is full (${code}): messages are left out until there is room`);
      this.#full = true;
      return false;
    }
  }
}

function cannotWrite(path: string, error: unknown): CommandError {
  return new CommandError(`cannot write ${path}: ${(error as NodeJS.ErrnoException).code}`);
}
