import { once } from "node:events";
import { request } from "node:http";
import { json, text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { WebSocket } from "ws";
import type { Endpoint } from "../../schemas/index.ts";
import { EndpointList, MessageReply } from "../../schemas/index.ts";
import { until } from "../support/figures.ts";
import { FrontendProcess } from "../support/frontend-process.ts";
import type { Random } from "../support/random.ts";
import type { Rest } from "../support/rest.ts";

/** Milliseconds after which something that has to come will not come any more. */
const PATIENCE = 20_000;
/** What a client that does not read asks the service `source` for: more than the kernel and `slowReaderBytes` hold. */
const ASKED = { text: "4000 480", messages: 4000 };

/**
 * What goes on beside the mixed run: a guest whose frontend is killed again and again, services of clients that come
 * and go, single messages over HTTP, watchers. Whatever is numbered is checked.
 */
export class Visitors {
  readonly problems: string[] = [];
  readonly figures = {
    kills: 0,
    echoes: 0,
    services: 0,
    serviceMessages: 0,
    rest: 0,
    watches: 0,
    events: 0,
    stalls: 0,
    closedSlow: 0,
    dropped: 0,
  };
  readonly #socketPath: string;
  /** Where the frontends that are killed attach: the guest `killed`. */
  readonly #frontendSocket: string;
  readonly #random: Random;
  readonly #rest: Rest;
  #isEnding = false;
  #done: Promise<unknown> = Promise.resolve();

  constructor(socketPath: string, frontendSocket: string, random: Random, rest: Rest) {
    this.#socketPath = socketPath;
    this.#frontendSocket = frontendSocket;
    this.#random = random;
    this.#rest = rest;
  }

  start(): void {
    const visits = [
      () => this.#kill(),
      () => this.#echo("killed"),
      () => this.#echo("killed"),
      () => this.#echo("inside"),
      () => this.#serve("svc-a"),
      () => this.#serve("svc-b"),
      () => this.#post(),
      () => this.#declare(),
      () => this.#watch(),
      () => this.#stall(),
    ];
    this.#done = Promise.all(visits.map((visit) => this.#again(visit)));
  }

  /** They finish what they are at. */
  async end(): Promise<void> {
    this.#isEnding = true;
    const isOver = this.#done.then(() => true);
    if (!(await Promise.race([isOver, delay(PATIENCE, false, { ref: false })])))
      this.problems.push("a visitor waits for something that does not come");
  }

  async #again(visit: () => Promise<void>): Promise<void> {
    while (!this.#isEnding) {
      await this.#rest.over;
      try {
        await visit();
      } catch (error) {
        this.problems.push(`visitor: ${error instanceof Error ? error.message : String(error)}`);
        await delay(200);
      }
    }
  }

  /** A frontend comes, and is killed after a while, now and then before it is attached. */
  async #kill(): Promise<void> {
    const frontend = new FrontendProcess(this.#frontendSocket);
    await frontend.ready();
    const attached = frontend.attach().catch(() => {});
    if (this.#random.chance(0.8)) await attached;
    await delay(this.#random.between(0, 1500));
    await frontend.kill();
    this.figures.kills++;
  }

  /** Talks to an echo until its guest is gone; what comes back is what was sent, in order and without a gap. */
  async #echo(guest: string): Promise<void> {
    const socket = await this.#connect(`/ws/v1/${guest}/echo`);
    if (socket === undefined) {
      await delay(50);
      return;
    }
    let sent = 0;
    let back = 0;
    socket.on("message", (data: Buffer) => {
      const number = data.readUInt32LE(0);
      if (number !== back) this.problems.push(`${guest}/echo: ${number} came back, not ${back}`);
      back = number + 1;
      this.figures.echoes++;
    });
    const closed = once(socket, "close") as Promise<[number]>;
    const until = performance.now() + this.#random.between(200, 3000);
    while (socket.readyState === WebSocket.OPEN && !this.#isEnding && performance.now() < until) {
      await this.#rest.over;
      for (let i = this.#random.between(1, 20); i > 0; i--) {
        const message = Buffer.alloc(this.#random.between(4, 496), sent);
        message.writeUInt32LE(sent++);
        socket.send(message);
      }
      await delay(this.#random.between(1, 30));
    }
    socket.close(1000);
    const [code] = await closed;
    if (code !== 1000 && code !== 4001) this.problems.push(`${guest}/echo: closed with ${code}`);
  }

  /** Is a service of the host for a while: the guest, which answers it with an echo, speaks first. */
  async #serve(name: string): Promise<void> {
    const socket = await this.#connect(`/ws/v1/inside?announce=${name}`);
    if (socket === undefined) throw new Error(`${name} cannot be announced`);
    this.figures.services++;
    const closed = once(socket, "close") as Promise<[number]>;
    const count = this.#random.between(1, 60);
    let back = 0;
    const all = new Promise<void>((resolve) => {
      socket.on("message", (data: Buffer) => {
        // The guest says where it is with an empty message.
        if (data.length === 0) return;
        if (data.readUInt32LE(0) !== back)
          this.problems.push(`${name}: ${data.readUInt32LE(0)} is not ${back}`);
        back++;
        this.figures.serviceMessages++;
        if (back === count) resolve();
      });
    });
    for (let i = 0; i < count; i++) {
      const message = Buffer.alloc(this.#random.between(4, 200));
      message.writeUInt32LE(i);
      socket.send(message);
    }
    const over = closed.then(([code]) => Promise.reject(new Error(`${name}: closed with ${code}`)));
    await Promise.race([all, over, delay(PATIENCE, undefined, { ref: false })]);
    if (back !== count) this.problems.push(`${name}: ${back} of ${count} messages came back`);
    over.catch(() => {});
    if (this.#random.chance(0.5)) socket.close(1000);
    else socket.terminate();
    await closed;
  }

  /**
   * Asks for much and reads nothing of it, until the bridge has closed it for that, or has dropped messages: each has come
   * then, or is counted.
   */
  async #stall(): Promise<void> {
    const policy = this.#random.pick(["close", "drop-oldest", "drop-newest"]);
    const before = (await this.#source()).counters.dropped;
    const socket = await this.#connect(`/ws/v1/inside/source?slow=${policy}`);
    if (socket === undefined) throw new Error("inside/source cannot be opened");
    const closed = once(socket, "close") as Promise<[number]>;
    let received = 0;
    socket.on("message", () => {
      received++;
    });
    socket.pause();
    socket.send(ASKED.text);
    this.figures.stalls++;
    if (policy === "close") {
      await until("a client that does not read has no channel any more", async () =>
        (await this.#source()).clients === 0 ? true : undefined,
      );
      socket.resume();
      const [code] = await closed;
      if (code === 1013) this.figures.closedSlow++;
      else this.problems.push(`a client that does not read was closed with ${code}`);
      return;
    }
    const dropped = async () => (await this.#source()).counters.dropped - before;
    await until(`a message is dropped (${policy})`, async () => ((await dropped()) > 0 ? true : undefined));
    socket.resume();
    await until(`${ASKED.messages} messages have come, or are counted as dropped`, async () =>
      (await dropped()) + received === ASKED.messages ? true : undefined,
    );
    this.figures.dropped += await dropped();
    socket.close(1000);
    await closed;
  }

  /** The service that sends what it is asked for. */
  async #source(): Promise<Endpoint> {
    const source = (await this.#endpoints("inside")).find((each) => each.name === "source");
    if (source === undefined) throw new Error("inside/source is not listed");
    return source;
  }

  /** Single messages over HTTP, each answered by the echo. */
  async #post(): Promise<void> {
    const echo = (await this.#endpoints("inside")).find((each) => each.name === "echo");
    if (echo === undefined) throw new Error("inside/echo is not listed");
    for (let i = this.#random.between(1, 30); i > 0; i--) {
      const data = `${i} ${"x".repeat(this.#random.below(400))}`;
      const { status, body } = await this.#http(
        "POST",
        `/api/v1/guests/inside/endpoints/${echo.id}/messages`,
        {
          data,
          wait: 10_000,
        },
      );
      if (status !== 200 || MessageReply.parse(body).data !== data)
        this.problems.push(`${status} for a message over HTTP: ${JSON.stringify(body)}`);
      this.figures.rest++;
      await delay(this.#random.between(1, 50));
    }
  }

  /** Declares services over HTTP and takes them away. */
  async #declare(): Promise<void> {
    const name = `declared-${this.#random.below(1000)}`;
    const made = await this.#http("POST", "/api/v1/guests/inside/endpoints", { name, ns: "down" });
    if (made.status !== 201)
      throw new Error(`${made.status} for a declaration: ${JSON.stringify(made.body)}`);
    await delay(this.#random.between(1, 300));
    const { id } = made.body as Endpoint;
    const gone = await this.#http("DELETE", `/api/v1/guests/inside/endpoints/${id}`);
    if (gone.status !== 204) throw new Error(`${gone.status} for a withdrawal: ${JSON.stringify(gone.body)}`);
    this.figures.rest += 2;
    await delay(this.#random.between(10, 200));
  }

  /** Watches for a while: what comes is whole events, whose ids grow. */
  async #watch(): Promise<void> {
    const asked = request({ ...this.#target("/api/v1/events"), agent: false }).end();
    asked.on("error", () => {});
    const [response] = await once(asked, "response");
    const over = setTimeout(() => asked.destroy(), this.#random.between(200, 8000));
    let rest = "";
    let last = -1;
    try {
      for await (const part of response.setEncoding("utf8")) {
        const events = (rest + part).split("\n\n");
        rest = events.pop() ?? "";
        for (const event of events) last = this.#event(event, last);
        if (this.#isEnding) asked.destroy();
      }
    } catch {
      // It was ended by us.
    }
    clearTimeout(over);
    this.figures.watches++;
  }

  #event(event: string, last: number): number {
    if (event.startsWith(":")) return last;
    this.figures.events++;
    const data = /^data: (.*)$/m.exec(event)?.[1];
    if (data === undefined) this.problems.push(`an event without data: ${event}`);
    else JSON.parse(data);
    // `INSTANCE:NUMBER` or the like: what grows is at its end.
    const id = /^id: .*?(\d+)$/m.exec(event)?.[1];
    if (id === undefined) return last;
    if (Number(id) <= last) this.problems.push(`event ${id} after ${last}`);
    return Number(id);
  }

  async #endpoints(guest: string): Promise<Endpoint[]> {
    const { body } = await this.#http("GET", `/api/v1/endpoints?guest=${guest}`);
    return EndpointList.parse(body).endpoints;
  }

  async #http(method: string, path: string, body?: object): Promise<{ status: number; body: unknown }> {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const target = this.#target(path);
    const asked = request({ ...target, method, agent: false, headers: { ...target.headers, ...headers } });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = await once(asked, "response");
    const { statusCode: status } = response;
    return { status, body: status === 204 ? await text(response) : await json(response) };
  }

  #target(path: string): { socketPath: string; path: string; headers: Record<string, string> } {
    return { socketPath: this.#socketPath, path, headers: { host: "localhost" } };
  }

  /** @returns undefined where it is refused, as by a guest that is not there */
  async #connect(path: string): Promise<WebSocket | undefined> {
    const socket = new WebSocket(`ws+unix:${this.#socketPath}:${path}`, { perMessageDeflate: false });
    socket.on("error", () => {});
    return new Promise((resolve) => {
      socket.once("open", () => resolve(socket));
      socket.once("close", () => resolve(undefined));
    });
  }
}
