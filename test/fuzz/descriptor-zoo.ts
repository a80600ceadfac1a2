import { spawnSync } from "node:child_process";
import { closeSync, constants, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEventfd } from "../../rpmsg/posix/eventfd.ts";
import { libc } from "../../rpmsg/posix/libc.ts";
import { closeFd, socketPair } from "../../rpmsg/posix/unix-socket.ts";

const { O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, O_DIRECTORY } = constants;

/** What the memory files of the zoo are called in /proc/self/maps. */
export const ZOO = "fuzz-zoo";

/** Descriptors of every kind that a hostile frontend may send instead of the expected one. */
export class DescriptorZoo {
  readonly all: readonly number[];
  readonly #hidden: number[] = [];
  readonly #directory = mkdtempSync(join(tmpdir(), "rpmsg-zoo-"));

  constructor() {
    const pipe = (name: string): string => {
      const path = join(this.#directory, name);
      if (spawnSync("mkfifo", [path]).status !== 0) throw new Error("mkfifo failed");
      return path;
    };
    const open = pipe("open");
    const both = openSync(open, O_RDWR | O_NONBLOCK);
    const broken = pipe("broken");
    const reader = openSync(broken, O_RDONLY | O_NONBLOCK);
    const writer = openSync(broken, O_WRONLY | O_NONBLOCK);
    closeSync(reader);
    const [socket, peer] = socketPair();
    const [lonely, gone] = socketPair();
    closeFd(gone);
    this.#hidden.push(peer);
    const file = join(this.#directory, "file");
    this.all = [
      ...[0, 1, 4095, 4096, 4097, 65536].map((size) => memoryFile(size, true)),
      ...[4096, 65536].map((size) => memoryFile(size, false)),
      createEventfd(),
      openSync(file, "w+"),
      openSync(file, O_RDONLY),
      both,
      openSync(open, O_RDONLY | O_NONBLOCK),
      openSync(open, O_WRONLY | O_NONBLOCK),
      writer,
      socket,
      lonely,
      libc().epoll_create1(0),
      openSync(this.#directory, O_RDONLY | O_DIRECTORY),
      openSync("/dev/null", O_RDWR),
      openSync("/dev/zero", O_RDWR),
      openSync("/proc/self/maps", O_RDONLY),
    ];
  }

  /** Open descriptors of the zoo. */
  get count(): number {
    return this.all.length + this.#hidden.length;
  }

  close(): void {
    for (const fd of [...this.all, ...this.#hidden]) closeFd(fd);
    rmSync(this.#directory, { recursive: true });
  }
}

function memoryFile(size: number, sealable: boolean): number {
  const fd = libc().memfd_create(ZOO, sealable ? 3 : 1);
  ftruncateSync(fd, size);
  return fd;
}
