import { renameSync } from "node:fs";
import type { Server, ServerResponse } from "node:http";
import { closeFd, duplicateFd, errnoName, SystemError } from "../../rpmsg/index.ts";
import { descriptorOf } from "../descriptors.ts";
import { Notice } from "../notice.ts";

/** Milliseconds in which connections that are cut off are gone. */
const CUT_OFF = 1000;

/**
 * The listening socket of an HTTP server, which can be let go of without being closed: connections then wait in its
 * backlog, for this process or another one.
 */
export class HttpDoor {
  readonly #server: Server;
  readonly #path: string | undefined;
  readonly #open = new Set<ServerResponse>();
  readonly #idle = new Notice();
  #fd: number | undefined;

  /**
   * @param server on which the application hears of requests first
   * @param path of a Unix socket
   */
  constructor(server: Server, path?: string) {
    this.#server = server;
    this.#path = path;
    server.on("request", ({ socket }, response: ServerResponse) => {
      // What came out of turn the application has ended already (InTurn): Node never tells the end of such an answer.
      if (socket.destroyed) return;
      this.#open.add(response);
      // Nothing else is asked on this connection: the next request is for whoever goes on.
      if (this.#fd !== undefined) response.shouldKeepAlive = false;
      response.once("close", () => {
        this.#open.delete(response);
        if (this.#open.size === 0) this.#idle.give();
      });
    });
  }

  /**
   * Takes no more connections.
   * @returns the listening socket
   * @throws SystemError socket: there is no descriptor left
   */
  close(): number {
    const copy = duplicateFd(descriptorOf(this.#server));
    if (copy < 0) throw new SystemError("socket", `cannot keep the listening socket: ${errnoName(copy)}`);
    this.#fd = copy;
    for (const response of this.#open) response.shouldKeepAlive = false;
    const path = this.#path;
    if (path === undefined) {
      this.#server.close();
      return copy;
    }
    // libuv removes the file of a socket that it has bound: it is to find none.
    const kept = `${path}.${process.pid}`;
    renameSync(path, kept);
    this.#server.close();
    renameSync(kept, path);
    return copy;
  }

  /**
   * Waits until all requests are answered; after so many milliseconds the connections are cut. In the end whoever serves
   * a request knows that it is over.
   */
  async idle(timeout: number): Promise<void> {
    await this.#answered(timeout);
    this.#server.closeAllConnections();
    await this.#answered(CUT_OFF);
  }

  async #answered(timeout: number): Promise<void> {
    if (this.#open.size > 0) await this.#idle.within(timeout);
  }

  /** Takes connections again. */
  async open(): Promise<void> {
    const fd = this.#fd;
    if (fd === undefined) return;
    this.#fd = undefined;
    if (this.#server.listening) closeFd(fd);
    else await listenOn(this.#server, fd);
  }
}

/** Listens on a socket that listens already. */
export async function listenOn(server: Server, fd: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ fd }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}
