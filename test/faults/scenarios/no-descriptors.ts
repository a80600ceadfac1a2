import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { connectUnix, errnoName, Poller, RecordSocket } from "../../../rpmsg/index.ts";
import { decode, encode, HAND_OVER_VERSION } from "../../../server/hand-over/messages.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, until } from "../../support/figures.ts";
import { FrontendProcess } from "../../support/frontend-process.ts";
import { PlainClient } from "../../support/plain-client.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

/** How many the bridge may have. */
const DESCRIPTORS = { test: 256, short: 1024, full: 4096 };
const ECHO = "/ws/v1/demo/echo";
const ASK = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
/** Connections that are cut off in a row when there is no room. */
const CUT = 10;

export const scenario: Scenario = {
  fault: "no descriptors left (EMFILE): taken by clients, then by whoever lowers the limit",
  passes:
    "clients refused and told, in the log and the metrics too; a guest attaches all the same, and with none at all as " +
    "soon as there are some; who is connected is served; as before when clients have left",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const most = DESCRIPTORS[scale];
  const events = new Map<string, number>();
  const bridge = await BridgeProcess.start(
    (directory) => ({
      logLevel: "info",
      handover: join(directory, "hand-over.sock"),
      guests: {
        demo: { kind: "emulated" },
        early: { kind: "vhost-user", path: join(directory, "early.sock") },
        late: { kind: "vhost-user", path: join(directory, "late.sock") },
      },
    }),
    {
      descriptors: most,
      onLog: (line) => {
        const { event, reason = "" } = JSON.parse(line) as { event: string; reason?: string };
        const key = /EMFILE/.test(reason) ? `${event} EMFILE` : event;
        events.set(key, (events.get(key) ?? 0) + 1);
      },
    },
  );
  const frontends = ["early", "late"].map(
    (name) => new FrontendProcess(join(bridge.directory, `${name}.sock`)),
  );
  const [early, late] = frontends as [FrontendProcess, FrontendProcess];
  const kept = new KeptConnection(bridge.url);
  const clients: PlainClient[] = [];
  const problems: string[] = [];
  try {
    await Promise.all(frontends.map((each) => each.ready()));
    const id = await until(
      "the guest",
      async () => (await bridge.endpoints()).find(({ name }) => name === "echo")?.id,
    );
    const good = await EchoClient.open(bridge.url, ECHO);
    await kept.ask("/healthz");
    const before = bridge.outside().descriptors;

    // Clients take all that they get.
    let cut = 0;
    while (cut < CUT && clients.length < 2 * most) {
      const client = await PlainClient.dial(bridge.url, ASK).catch(() => undefined);
      const answer = client === undefined ? "" : await firstOf(client);
      if (client === undefined || answer === "") cut++;
      else clients.push(client);
      if (answer.includes(" 503 ") && !answer.includes('"overloaded"')) problems.push(answer);
      // What is refused ends; whoever wants to keep it does not ask.
      if (answer.includes(" 503 ")) clients.push(await PlainClient.dial(bridge.url));
    }
    const full = bridge.outside().descriptors;
    if (cut < CUT) problems.push(`nobody was cut off at ${full} of ${most} descriptors`);
    await until("an event that says so", () => (events.has("descriptors-short") ? true : undefined));
    const { body } = await kept.ask("/metrics");
    const reached = Number(/limit_reached_total\{limit="descriptors"\} (\d+)/.exec(body)?.[1] ?? 0);
    if (reached < CUT) problems.push(`${reached} refusals are counted`);
    await good.echo("served");
    await early.attach();

    // None at all.
    setLimit(bridge.pid, 1, most);
    const attached = late.attach();
    await until("that it is told of", () => (events.has("transport-error EMFILE") ? true : undefined));
    await good.echo("served still");
    const sent = await kept.ask(
      `/api/v1/guests/demo/endpoints/${id}/messages`,
      JSON.stringify({ data: "x" }),
    );
    if (sent.status !== 202) problems.push(`a message was answered with ${sent.status}`);
    const scraped = await kept.ask("/metrics");
    if (scraped.status !== 200) problems.push(`metrics were answered with ${scraped.status}`);
    setLimit(bridge.pid, most, most);
    await attached;
    const refusal = await handOverWithNone(bridge, most);
    if (!refusal.includes("EMFILE")) problems.push(`a successor was told "${refusal}"`);

    for (const { socket } of clients) socket.destroy();
    await until("room", () => (bridge.outside().descriptors < before + 40 ? true : undefined));
    await bridge.health();
    for (const guest of ["early", "late"])
      await (
        await until(`the echo of ${guest}`, () =>
          EchoClient.open(bridge.url, `/ws/v1/${guest}/echo`).catch(() => undefined),
        )
      ).echo("here");
    await good.echo("served");
    const lines = [...events.values()].reduce((sum, each) => sum + each, 0);
    return {
      measured:
        `${count(most)} descriptors: ${count(full)} open when clients were cut off, ${count(clients.length)} clients; ` +
        `${count(reached)} refused in the metrics, ${lines} lines in the log`,
      problems,
    };
  } finally {
    kept.close();
    for (const { socket } of clients) socket.destroy();
    await Promise.all(frontends.map((each) => each.kill()));
    await bridge.stop("SIGKILL");
  }
}

/** Changes what a running process may have: its soft limit. What it has already stays. */
function setLimit(pid: number, soft: number, hard: number): void {
  execFileSync("prlimit", ["--pid", String(pid), `--nofile=${soft}:${hard}`]);
}

/** The answer to what was asked; empty where the connection ends without one. */
async function firstOf({ socket }: PlainClient): Promise<string> {
  return new Promise((resolve) => {
    socket.once("data", (part: Buffer) => resolve(part.toString("latin1")));
    socket.once("close", () => resolve(""));
  });
}

/** A successor asks for everything when there is no descriptor left. @returns why it is refused */
async function handOverWithNone(bridge: BridgeProcess, most: number): Promise<string> {
  const path = join(bridge.directory, "hand-over.sock");
  const before = bridge.outside().descriptors;
  const fd = connectUnix(path);
  if (fd < 0) throw new Error(`cannot connect to ${path}: ${errnoName(fd)}`);
  const poller = new Poller();
  let reason: string | undefined;
  const socket = new RecordSocket(fd, poller, {
    onRecord: (payload) => {
      const message = decode(payload);
      reason ??= message.type === "refused" ? message.reason : message.type;
    },
    onClose: () => {
      reason ??= "";
    },
  });
  try {
    await until("that it is accepted", () => (bridge.outside().descriptors > before ? true : undefined));
    setLimit(bridge.pid, 1, most);
    socket.send(encode({ type: "hello", protocol: "rpmsg-bridge-hand-over", version: HAND_OVER_VERSION }));
    return await until("an answer", () => reason);
  } finally {
    setLimit(bridge.pid, most, most);
    socket.close();
    poller.close();
  }
}

/** Requests over a connection that is there already. */
class KeptConnection {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  async ask(path: string, body?: string): Promise<{ status: number | undefined; body: string }> {
    const asked = request(new URL(path, this.#url), {
      agent: this.#agent,
      method: body === undefined ? "GET" : "POST",
      headers: { "content-type": "application/json" },
    });
    const [response] = (await once(asked.end(body), "response")) as [
      AsyncIterable<Buffer> & { statusCode?: number },
    ];
    return { status: response.statusCode, body: await text(response) };
  }

  close(): void {
    this.#agent.destroy();
  }
}
