import { unlinkSync } from "node:fs";
import { SystemError } from "../errors.ts";
import { errno, errnoName } from "../posix/errno.ts";
import type { Poller } from "../posix/poller.ts";
import { accept, closeFd, connectUnix, listenUnix } from "../posix/unix-socket.ts";

/** Milliseconds before the next try to connect: the first, and the most after doubling. */
const RETRY_FIRST = 50;
const RETRY_MOST = 1000;
/** Milliseconds before accepting is tried again when the process has no descriptor left. */
const ACCEPT_RETRY = 200;

/** A use of a connected socket; `closed` is to be called once when it ends. */
export type Serve = (fd: number, closed: () => void) => { close(): void };

/** What a transport of another process hands over. */
export interface TransportSnapshot {
  /** The listening socket, where it listens. */
  readonly listener: number | undefined;
  /** The frontend's connection, where there is one. */
  readonly connection: number | undefined;
}

export interface Transport {
  /** Takes no new connection until `resume`: they wait in the backlog. */
  pause(): void;
  /** Goes on after `pause`; or, made from what another process hands over, for the first time. */
  resume(): void;
  /** The listening socket. */
  readonly listener: number | undefined;
  close(): void;
}

/**
 * Listens on a Unix socket and serves one connection at a time. The next frontend waits in the backlog, so that a
 * virtual machine that restarts at once does not find the door shut.
 * @throws SystemError socket: the path cannot be listened on
 */
export function listenTransport(
  path: string,
  poller: Poller,
  serve: Serve,
  onError: (error: Error) => void,
  from?: TransportSnapshot,
): Transport {
  const listener = from?.listener ?? listenUnix(path);
  if (listener < 0) throw new SystemError("socket", `cannot listen on ${path}: ${errnoName(listener)}`);
  let current: { close(): void } | undefined;
  let retry: NodeJS.Timeout | undefined;
  let closed = false;
  let paused = from !== undefined;
  /** What another process hands over is its own until `resume`. */
  let owned = !paused;
  const use = (fd: number): void => {
    // It may be over before `serve` returns.
    const state = { over: false };
    try {
      const connection = serve(fd, () => {
        state.over = true;
        current = undefined;
        // Not from within the closing of the old connection.
        setImmediate(next);
      });
      if (!state.over) current = connection;
    } catch (error) {
      // What another process hands over is taken, or it keeps it.
      if (paused) throw error;
      onError(error instanceof Error ? error : new Error(String(error)));
    }
  };
  const next = (): void => {
    while (current === undefined && !closed && !paused) {
      const fd = accept(listener);
      if (fd === -errno.EAGAIN) return;
      if (fd === -errno.EINTR || fd === -errno.ECONNABORTED) continue;
      if (fd < 0) {
        onError(new SystemError("socket", `cannot accept on ${path}: ${errnoName(fd)}`));
        // The poller reports only news, and the waiting connection is none.
        clearTimeout(retry);
        retry = setTimeout(next, ACCEPT_RETRY);
        return;
      }
      use(fd);
    }
  };
  const watch = (): void => {
    const result = poller.add(listener, next);
    if (result >= 0) return;
    closeFd(listener);
    throw new SystemError("socket", `cannot poll ${path}: ${errnoName(result)}`);
  };
  try {
    if (from?.connection !== undefined) use(from.connection);
  } catch (error) {
    closeFd(listener);
    throw error;
  }
  if (!paused) watch();
  return {
    listener,
    pause() {
      paused = true;
      poller.remove(listener);
    },
    resume() {
      if (closed || !paused) return;
      paused = false;
      owned = true;
      // Who waits already is news to the poller.
      watch();
    },
    close() {
      if (closed) return;
      closed = true;
      clearTimeout(retry);
      poller.remove(listener);
      closeFd(listener);
      if (!owned) {
        current?.close();
        return;
      }
      try {
        unlinkSync(path);
      } catch {
        // Somebody has taken it away already.
      }
      current?.close();
    },
  };
}

/** Connects to a Unix socket, and again whenever the connection ends or cannot be made. */
export function connectTransport(
  path: string,
  serve: Serve,
  onError: (error: Error) => void,
  from?: TransportSnapshot,
): Transport {
  let current: { close(): void } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let delay = RETRY_FIRST;
  let closed = false;
  let failing = false;
  let paused = from !== undefined;
  const attempt = (): void => {
    timer = undefined;
    const fd = connectUnix(path);
    if (fd < 0) {
      // Said once for a row of failures.
      if (!failing)
        onError(new SystemError("socket", `cannot connect to ${path}: ${errnoName(fd)}, trying again`));
      failing = true;
      again();
      return;
    }
    failing = false;
    delay = RETRY_FIRST;
    use(fd);
  };
  const use = (fd: number): void => {
    try {
      current = serve(fd, () => {
        current = undefined;
        again();
      });
    } catch (error) {
      // What another process hands over is taken, or it keeps it.
      if (paused) throw error;
      onError(error instanceof Error ? error : new Error(String(error)));
      again();
    }
  };
  const again = (): void => {
    if (closed || paused) return;
    timer = setTimeout(attempt, delay);
    delay = Math.min(delay * 2, RETRY_MOST);
  };
  if (from?.connection !== undefined) use(from.connection);
  if (!paused) attempt();
  return {
    listener: undefined,
    pause() {
      paused = true;
      clearTimeout(timer);
      timer = undefined;
    },
    resume() {
      if (closed || !paused) return;
      paused = false;
      if (current === undefined) attempt();
    },
    close() {
      if (closed) return;
      closed = true;
      clearTimeout(timer);
      current?.close();
    },
  };
}

/**
 * Listens on a Unix socket or connects to it, as told. The poller is closed with the transport, and where there is none
 * in the end: an open poller keeps the process alive.
 * @throws SystemError socket: the path cannot be listened on
 */
export function openTransport(
  mode: "listen" | "connect",
  path: string,
  poller: Poller,
  serve: Serve,
  onError: (error: Error) => void,
  from?: TransportSnapshot,
): Transport {
  try {
    const transport =
      mode === "listen"
        ? listenTransport(path, poller, serve, onError, from)
        : connectTransport(path, serve, onError, from);
    return {
      listener: transport.listener,
      pause: () => transport.pause(),
      resume: () => transport.resume(),
      close() {
        transport.close();
        poller.close();
      },
    };
  } catch (error) {
    poller.close();
    throw error;
  }
}
