import { expect, onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { EmulatedGuest, echo, sensor, sink, source, tty } from "../../guest/index.ts";
import { startBridge } from "../../server/index.ts";
import type { Transcript, TranscriptLine } from "../support/transcript.ts";
import { contentOf, Placeholders } from "../support/transcript.ts";

/** Milliseconds after which a bridge that is to say something says nothing. */
const PATIENCE = 10_000;

const services = { echo, tty, sensor, source, sink };

/** What a bridge did: as the lines `<<` and `<` say it. */
interface Item {
  mark: "<<" | "<";
  value: unknown;
}

/** One connection of the client with the bridge, and what came over it and was not looked at yet. */
class Connection {
  readonly #items: Item[] = [];
  #wake: () => void = () => {};
  /** Says something to the bridge. */
  say: (text: string) => void = () => {
    throw new Error("nobody listens");
  };
  end: (code?: number) => void = () => {};

  add(mark: Item["mark"], value: unknown): void {
    this.#items.push({ mark, value });
    this.#wake();
  }

  async next(where: string): Promise<Item> {
    for (;;) {
      const item = this.#items.shift();
      if (item !== undefined) return item;
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${where}: the bridge says nothing`)), PATIENCE);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** What the bridge said beyond what is expected. */
  get rest(): readonly Item[] {
    return this.#items;
  }
}

/** `open PATH [SUBPROTOCOL]` */
function openWebSocket(url: string, path: string, protocol: string | undefined): Connection {
  const connection = new Connection();
  const offered = protocol === undefined ? [] : [protocol];
  const socket = new WebSocket(url.replace("http", "ws") + path, offered, { perMessageDeflate: false });
  onTestFinished(() => socket.terminate());
  socket.on("error", () => {});
  socket.on("open", () => connection.add("<<", `open ${socket.protocol}`.trim()));
  socket.on("message", (data: Buffer, isBinary) => {
    connection.add("<", isBinary ? { hex: data.toString("hex") } : contentOf(data.toString()));
  });
  socket.on("unexpected-response", (_request, response) => {
    let body = "";
    response.on("data", (part) => {
      body += String(part);
    });
    response.on("end", () => {
      connection.add("<<", `refused ${response.statusCode} ${response.headers["content-type"]}`);
      connection.add("<", JSON.parse(body));
    });
  });
  socket.on("close", (code, reason) => connection.add("<<", `close ${code} ${reason.toString()}`.trim()));
  connection.say = (text) => {
    const [, what = text, times = "1"] = /^(.*) x(\d+)$/.exec(text) ?? [];
    const value = contentOf(what) as { hex?: string; text?: string };
    const data = value.hex === undefined ? (value.text ?? what) : Buffer.from(value.hex, "hex");
    for (let count = Number(times); count > 0; count--) socket.send(data);
  };
  connection.end = (code) => (code === undefined ? socket.terminate() : socket.close(code));
  return connection;
}

/** The lines of a request: `METHOD PATH`, header fields, and the body. */
function request(url: string, [head = "", ...more]: readonly string[]): Connection {
  const connection = new Connection();
  const abort = new AbortController();
  connection.end = () => abort.abort();
  const [method = "", path = ""] = head.split(" ");
  const headers = new Headers();
  let body: string | Uint8Array<ArrayBuffer> | undefined;
  for (const line of more) {
    const [, name, value] = /^([a-z-]+): (.*)$/.exec(line) ?? [];
    const { hex } = contentOf(line) as { hex?: string };
    if (name !== undefined && value !== undefined) headers.set(name, value);
    else body = hex === undefined ? line : Uint8Array.from(Buffer.from(hex, "hex"));
  }
  const options = { method, headers, signal: abort.signal, ...(body !== undefined && { body }) };
  fetch(url + path, options)
    .then((response) => answer(response, connection))
    .catch((error: unknown) => {
      if (!abort.signal.aborted) connection.add("<<", String(error));
    });
  return connection;
}

async function answer(response: Response, connection: Connection): Promise<void> {
  const type = response.headers.get("content-type");
  connection.add("<", `${response.status} ${type ?? ""}`.trim());
  const location = response.headers.get("location");
  if (location !== null) connection.add("<", `location: ${location}`);
  if (type === "text/event-stream") {
    let text = "";
    for await (const part of response.body ?? []) {
      text += Buffer.from(part).toString();
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      // Comments keep the connection alive.
      for (const line of lines) if (!line.startsWith(":")) connection.add("<", contentOf(line));
    }
  }
  const body = Buffer.from(await response.arrayBuffer());
  if (type?.startsWith("application/octet-stream") === true)
    connection.add("<", { hex: body.toString("hex") });
  else if (body.length > 0) connection.add("<", contentOf(body.toString()));
}

/** Has a conversation with a bridge, and expects its part to be as it is written. */
export async function expectReplay({ lines }: Transcript): Promise<void> {
  const setup = setupOf(lines);
  const { demo } = setup.guests;
  const bridge = await startBridge({ listen: "127.0.0.1:0", limits: setup.limits }, setup);
  onTestFinished(() => bridge.close());
  const placeholders = new Placeholders();
  let connection = new Connection();
  let head: string[] = [];
  for (const { mark, text, number } of lines) {
    const where = `line ${number}`;
    if (mark === "::") continue;
    const filled = mark.startsWith("<") ? text : placeholders.fill(text);
    const [word = "", first = "", second] = filled.split(" ");
    if (mark === ">" && (/^[A-Z]+ \//.test(filled) || head.length > 0)) {
      head.push(filled);
    } else if (mark === ">") {
      connection.say(filled);
    } else if (mark === "!!") {
      await operate(demo, word, first);
    } else if (mark === ">>" && word !== "open") {
      connection.end(word === "cut" ? undefined : Number(first));
    } else if (mark === ">>") {
      expect(connection.rest, `before ${where}`).toEqual([]);
      connection = openWebSocket(bridge.url, first, second);
    } else {
      if (head.length > 0) {
        expect(connection.rest, `before ${where}`).toEqual([]);
        connection = request(bridge.url, head);
        head = [];
      }
      const item = await connection.next(where);
      const value = placeholders.resolve(contentOf(text), item.value);
      expect(item, where).toStrictEqual({ mark, value });
    }
  }
  expect(connection.rest, "at the end").toEqual([]);
  connection.end();
}

/** The lines `limits.NAME NUMBER` and `services NAME...`. */
function setupOf(lines: readonly TranscriptLine[]) {
  const limits: Record<string, number> = { drainTimeout: 1000 };
  let names = Object.keys(services);
  for (const { mark, text } of lines) {
    const [key = "", ...values] = text.split(" ");
    if (mark !== "::") continue;
    if (key === "services") names = values;
    else limits[key.replace("limits.", "")] = Number(values[0]);
  }
  const chosen = Object.fromEntries(Object.entries(services).filter(([name]) => names.includes(name)));
  return { limits, guests: { demo: new EmulatedGuest({ services: chosen }) } };
}

async function operate(guest: EmulatedGuest, what: string, name: string): Promise<void> {
  if (what === "reboot" || what === "pause" || what === "resume") await guest[what]();
  else if (what !== "withdraw" || !guest.withdraw(name)) throw new Error(`the guest cannot ${what} ${name}`);
}
