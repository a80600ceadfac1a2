import { EventEmitter } from "node:events";
import { WebSocket } from "ws";

/**
 * Your software: it asks the thermometer of a board for a reading, again and again, and goes on when the board reboots.
 * Emits `reading` with `{ celsius, readings }`, and `lost` with the close code when the connection has ended.
 */
export class Thermometer extends EventEmitter {
  #url;
  #interval;
  #patience;
  #socket;
  #timer;
  #closed = false;

  /** Milliseconds: `interval` between readings and between tries to connect, `patience` until it asks again. */
  constructor(url, { interval = 1000, patience = 1000 } = {}) {
    super();
    this.#url = url;
    this.#interval = interval;
    this.#patience = patience;
    this.#connect();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket.close();
  }

  #connect() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.on("open", () => this.#read());
    socket.on("message", (data) => {
      this.#later(() => this.#read(), this.#interval);
      this.emit("reading", JSON.parse(new TextDecoder().decode(data)));
    });
    // Refused, as while the board boots: "close" follows.
    socket.on("error", () => {});
    socket.on("close", (code) => {
      clearTimeout(this.#timer);
      if (this.#closed) return;
      this.#later(() => this.#connect(), this.#interval);
      this.emit("lost", code);
    });
  }

  #read() {
    this.#socket.send("read");
    this.#later(() => this.#read(), this.#patience);
  }

  #later(action, milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => action(), milliseconds);
  }
}
