import { describe, expect, test } from "vitest";
import type { Limits } from "../../schemas/index.ts";
import { Config } from "../../schemas/index.ts";
import { newTicket, newToken } from "../../server/access/credentials.ts";
import { Gate } from "../../server/access/gate.ts";
import { HttpProblem } from "../../server/problem.ts";
import { allRights, testToken } from "./tokens.ts";

const all = { read: ["*/*"] };

/** A gate with these tokens, and the time of its clock. */
function gateOf(...tokens: { config: object }[]): { gate: Gate; clock: { now: number } } {
  return limitedGate({}, ...tokens);
}

function limitedGate(limits: Partial<Limits>, ...tokens: { config: object }[]) {
  const clock = { now: Date.parse("2027-01-01T00:00:00Z") };
  const config = Config.parse({ limits, tokens: tokens.map((each) => each.config) });
  return { gate: new Gate(config, undefined, () => clock.now), clock };
}

/** What a gate makes that is closed and inherits nothing. */
function madeBy(gate: Gate): { token: string; ticket: string } {
  const made = gate.close();
  if (made === undefined) throw new Error("nothing was made");
  return made;
}

const show = (bearer: string) => ({ authorization: `Bearer ${bearer}` });

/** Name of the token that a request counts as; the code and the text where it is refused. */
function admitted(gate: Gate, headers: Record<string, string>): string | undefined {
  return outcome(() => gate.admit({ ...headers }).name);
}

/** What comes of it; the code and the text where it is refused. */
function outcome<T>(action: () => T): T | string {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof HttpProblem)) throw error;
    return `${error.code}: ${error.message}`;
  }
}

describe("what a request shows", () => {
  const [one, two] = [testToken("one", all), testToken("two", all)];
  const missing = 'unauthorized: want "Authorization: Bearer TOKEN"';
  const unknown = "unauthorized: the token is not known";
  const none = "unauthorized: what came as a bearer is no token";

  test.each<[string, Record<string, string>, string]>([
    ["nothing", {}, missing],
    ["a token", one.headers, "one"],
    ["another", two.headers, "two"],
    ["the scheme in other letters", { authorization: `bEARER  ${one.token} ` }, "one"],
    ["another scheme", { authorization: `Basic ${one.token}` }, none],
    ["a bare token", { authorization: one.token }, none],
    ["an empty bearer", { authorization: "Bearer " }, none],
    ["two tokens", { authorization: `Bearer ${one.token} ${two.token}` }, none],
    ["an unknown token", show(newToken()), unknown],
    ["an unknown ticket", show(newTicket()), "unauthorized: the ticket is not known any more"],
    ["a token with a letter more", show(`${one.token}a`), none],
    ["a token with a letter less", show(one.token.slice(0, -1)), none],
    ["a hash", show(one.config.hash), none],
    [
      "a token in a subprotocol",
      { "sec-websocket-protocol": `rpmsg.v1.raw, rpmsg.bearer.${one.token}` },
      "one",
    ],
    ["first", { "sec-websocket-protocol": `rpmsg.bearer.${two.token},rpmsg.v1.raw` }, "two"],
    ["an empty one", { "sec-websocket-protocol": "rpmsg.bearer." }, none],
    ["subprotocols", { "sec-websocket-protocol": "rpmsg.v1.raw" }, missing],
    [
      "both ways: the header counts",
      { ...one.headers, "sec-websocket-protocol": `rpmsg.bearer.${two.token}` },
      "one",
    ],
  ])("%s", (_what, headers, expected) => {
    expect(admitted(gateOf(one, two).gate, headers)).toBe(expected);
  });

  test("is taken out of the headers, and nothing else is", () => {
    const headers = {
      ...one.headers,
      host: "localhost",
      "sec-websocket-protocol": `rpmsg.v1.raw,rpmsg.bearer.${two.token}, other,rpmsg.bearer.x`,
    };
    gateOf(one, two).gate.admit(headers);
    expect(headers).toEqual({ host: "localhost", "sec-websocket-protocol": "rpmsg.v1.raw, other" });
  });

  test("a weak token cannot be had, even where its hash is configured", () => {
    for (const weak of ["password", "rpmsg_password", `rpmsg_${"!".repeat(43)}`]) {
      const { config } = testToken("weak", all, undefined, weak);
      expect(admitted(gateOf({ config }).gate, show(weak))).toBe(none);
    }
  });

  test("does not matter to a gate that is open", () => {
    const { gate } = gateOf();
    expect(gate.open).toBe(true);
    for (const headers of [{}, one.headers, show("x")]) expect(admitted(gate, headers)).toBeUndefined();
  });

  test("does not matter with auth none, whatever tokens there are", () => {
    const gate = new Gate(Config.parse({ auth: "none", tokens: [one.config] }));
    expect([gate.open, admitted(gate, {})]).toEqual([true, undefined]);
  });
});

test("a token ends at its time, not before", () => {
  const token = testToken("one", all, Date.parse("2027-01-01T00:01:00Z"));
  const { gate, clock } = gateOf(token);
  clock.now += 59_999;
  expect(admitted(gate, token.headers)).toBe("one");
  clock.now += 1;
  expect(admitted(gate, token.headers)).toBe("unauthorized: the token has expired");
});

describe("a ticket", () => {
  test("is good once, for the rights of its token", () => {
    const token = testToken("one", { read: ["demo/echo"] });
    const { gate } = gateOf(token);
    const { credential } = gate.issueTicket(gate.admit({ ...token.headers }));
    const permit = gate.admit(show(credential));
    expect(permit.name).toBe("one");
    expect(permit.may("read", { guest: "demo", name: "echo" })).toBe(true);
    expect(permit.may("write", { guest: "demo", name: "echo" })).toBe(false);
    expect(admitted(gate, show(credential))).toBe("unauthorized: the ticket is not known any more");
  });

  test("lives for 30 seconds, and not longer than its token", () => {
    const token = testToken("one", all);
    const { gate, clock } = gateOf(token);
    const permit = gate.admit({ ...token.headers });
    const [early, late] = [gate.issueTicket(permit), gate.issueTicket(permit)];
    expect(early.until).toBe(clock.now + 30_000);
    clock.now += 29_999;
    expect(admitted(gate, show(early.credential))).toBe("one");
    clock.now += 1;
    expect(admitted(gate, show(late.credential))).toBe("unauthorized: the ticket has expired");
    // Used up by that.
    expect(admitted(gate, show(late.credential))).toBe("unauthorized: the ticket is not known any more");

    const short = testToken("short", all, clock.now + 10_000);
    const other = gateOf(short);
    other.clock.now = clock.now;
    expect(other.gate.issueTicket(other.gate.admit({ ...short.headers })).until).toBe(clock.now + 10_000);
  });

  test("gets neither a ticket nor a session, and is used up by asking", () => {
    const token = testToken("one", all);
    const { gate } = gateOf(token);
    const permit = gate.admit(show(gate.issueTicket(gate.admit({ ...token.headers })).credential));
    expect(outcome(() => gate.issueTicket(permit))).toBe(
      "forbidden: a ticket gets no other: ask with a token",
    );
    expect(outcome(() => gate.issueSession(permit))).toContain("forbidden: a ticket gets no session");
  });
});

describe("what a token may have of", () => {
  const [one, two] = [testToken("one", all), testToken("two", all)];
  /** A gate where a token may have two of each. */
  const narrow = (...tokens: { config: object }[]) => limitedGate({ connectionsPerToken: 2 }, ...tokens);
  /** How to ask for one, how long it lasts. */
  const ways = [
    ["tickets", "issueTicket", 30],
    ["sessions", "issueSession", 12 * 3600],
  ] as const;

  test.each(ways)("%s: the next one waits for an end; nobody's ends for it", (what, issue, seconds) => {
    const { gate, clock } = narrow(one, two);
    const permit = gate.admit({ ...one.headers });
    const first = gate[issue](permit).credential;
    clock.now += 10_000;
    const second = gate[issue](permit).credential;
    const refusal = () => gate[issue](permit);
    expect(refusal).toThrow(`token "one" has 2 ${what}, the most there may be`);
    expect(refusal).toThrow(
      expect.objectContaining({
        code: "rate-limited",
        headers: { "retry-after": String(seconds - 10) },
      }),
    );
    // Others do not feel it.
    const other = gate[issue](gate.admit({ ...two.headers })).credential;
    expect([first, second, other].map((each) => admitted(gate, show(each)))).toEqual(["one", "one", "two"]);
  });

  test.each(ways)("%s: one more where one has ended, not before", (_what, issue, seconds) => {
    const { gate, clock } = narrow(one);
    const permit = gate.admit({ ...one.headers });
    gate[issue](permit);
    clock.now += 1000;
    gate[issue](permit);
    clock.now += (seconds - 1) * 1000 - 1;
    expect(outcome(() => gate[issue](permit))).toContain("rate-limited");
    clock.now += 1;
    gate[issue](permit);
    expect(outcome(() => gate[issue](permit))).toContain("rate-limited");
  });

  test("tickets: those that were used do not count", () => {
    const { gate } = narrow(one);
    for (let i = 0; i < 5; i++) {
      const { credential } = gate.issueTicket(gate.admit({ ...one.headers }));
      expect(admitted(gate, show(credential))).toBe("one");
    }
  });

  test("tickets: the one that is printed at the start does not count, and does not end", () => {
    const { gate } = narrow();
    const { token, ticket } = madeBy(gate);
    const permit = gate.admit(show(token));
    for (let i = 0; i < 2; i++) gate.issueTicket(permit);
    for (let i = 0; i < 9; i++) expect(outcome(() => gate.issueTicket(permit))).toContain("rate-limited");
    const session = gate.issueSession(gate.admit(show(ticket))).credential;
    gate.issueSession(permit);
    for (let i = 0; i < 9; i++) expect(outcome(() => gate.issueSession(permit))).toContain("rate-limited");
    expect(admitted(gate, show(session))).toBe("generated");
  });

  test("either counts as the limit that it is", () => {
    let full = 0;
    const config = Config.parse({ limits: { connectionsPerToken: 1 }, tokens: [one.config] });
    const gate = new Gate(config, undefined, Date.now, () => full++);
    const permit = gate.admit({ ...one.headers });
    for (const [, issue] of ways) {
      gate[issue](permit);
      expect(() => gate[issue](permit)).toThrow();
    }
    expect(full).toBe(2);
  });

  test("neither is kept where nobody needs one", () => {
    const { gate } = limitedGate({ connectionsPerToken: 1 });
    for (let i = 0; i < 3; i++) for (const [, issue] of ways) gate[issue](gate.admit({}));
    expect(gate.snapshot()).toEqual({ made: undefined, sessions: [], tickets: [] });
  });
});

describe("a session", () => {
  test("is a token with the same rights, for 12 hours, which a ticket can be made of", () => {
    const token = testToken("one", all);
    const { gate, clock } = gateOf(token);
    const { credential, until } = gate.issueSession(gate.admit({ ...token.headers }));
    expect(until).toBe(clock.now + 12 * 3_600_000);
    for (let i = 0; i < 3; i++) expect(admitted(gate, show(credential))).toBe("one");
    const permit = gate.admit(show(credential));
    expect(permit.expires).toBe(until);
    clock.now = until - 1000;
    expect(gate.issueTicket(permit).until).toBe(until);
    expect(admitted(gate, show(credential))).toBe("one");
    clock.now = until;
    expect(admitted(gate, show(credential))).toBe("unauthorized: the token has expired");
    expect(admitted(gate, token.headers)).toBe("one");
  });

  test("ends with its token, whatever it was made of", () => {
    const { gate, clock } = gateOf();
    const end = clock.now + 60_000;
    const token = testToken("one", all, end);
    const other = gateOf(token);
    const first = other.gate.issueSession(other.gate.admit({ ...token.headers }));
    const second = other.gate.issueSession(other.gate.admit(show(first.credential)));
    expect([gate.open, first.until, second.until]).toEqual([true, end, end]);
  });
});

test("a gate that is closed without tokens has one, and a ticket that lives for 15 minutes", () => {
  const { gate, clock } = gateOf();
  const { token, ticket } = madeBy(gate);
  expect([gate.open, admitted(gate, {}), admitted(gate, show(token))]).toEqual([
    false,
    'unauthorized: want "Authorization: Bearer TOKEN"',
    "generated",
  ]);
  clock.now += 15 * 60_000 - 1;
  const permit = gate.admit(show(ticket));
  expect(outcome(() => gate.issueTicket(permit))).toContain("forbidden");
  expect(admitted(gate, show(gate.issueSession(permit).credential))).toBe("generated");
  expect(() => permit.demandAdmin("all")).not.toThrow();
  expect(admitted(gate, show(ticket))).toContain("not known");
  const later = gateOf();
  const made = madeBy(later.gate);
  later.clock.now += 15 * 60_000;
  expect(admitted(later.gate, show(made.ticket))).toContain("expired");
});

describe("the gate of a successor", () => {
  const [one, two] = [testToken("one", all), testToken("two", all)];
  const config = (...tokens: { config: object }[]) =>
    Config.parse({ tokens: tokens.map((each) => each.config) });
  /** As a process gets it from another. */
  const inherited = (gate: Gate) => structuredClone(gate.snapshot());

  test("takes sessions and tickets of tokens that it has, too, with the rights that these have now", () => {
    const first = new Gate(config(one, two));
    const session = first.issueSession(first.admit({ ...one.headers })).credential;
    const ticket = first.issueTicket(first.admit({ ...one.headers })).credential;
    const gone = first.issueSession(first.admit({ ...two.headers })).credential;
    const narrowed = { config: { ...one.config, rights: { read: ["vm/echo"] } } };
    const next = new Gate(config(narrowed), inherited(first));
    expect(next.admit(show(session)).may("read", { guest: "vm", name: "tty" })).toBe(false);
    expect(next.admit(show(session)).may("read", { guest: "vm", name: "echo" })).toBe(true);
    expect([admitted(next, show(ticket)), admitted(next, show(gone))]).toEqual([
      "one",
      "unauthorized: the token is not known",
    ]);
    expect(admitted(next, show(ticket))).toContain("not known any more");
  });

  test("ends them when their gate would have", () => {
    const clock = { now: Date.parse("2027-01-01T00:00:00Z") };
    const first = new Gate(config(one), undefined, () => clock.now);
    const session = first.issueSession(first.admit({ ...one.headers }));
    const next = new Gate(config(one), inherited(first), () => clock.now);
    expect(next.admit(show(session.credential)).expires).toBe(session.until);
    clock.now = session.until;
    expect(admitted(next, show(session.credential))).toBe("unauthorized: the token has expired");
  });

  test("has no fewer of them where it allows fewer, and no more either", () => {
    const first = new Gate(config(one));
    const permit = first.admit({ ...one.headers });
    const tickets = Array.from({ length: 3 }, () => first.issueTicket(permit).credential);
    const limits = { connectionsPerToken: 2 };
    const next = new Gate(Config.parse({ tokens: [one.config], limits }), inherited(first));
    const ask = () => outcome(() => next.issueTicket(next.admit({ ...one.headers })));
    expect(ask()).toContain("rate-limited");
    expect(admitted(next, show(tickets[0] ?? ""))).toBe("one");
    expect(ask()).toContain("rate-limited");
    expect(tickets.slice(1).map((each) => admitted(next, show(each)))).toEqual(["one", "one"]);
    expect(ask()).toMatchObject({ credential: expect.stringMatching(/^rpmsgt_/) });
  });

  test("takes a ticket for what it was, until its session ends", () => {
    const first = new Gate(config(one));
    const session = first.issueSession(first.admit({ ...one.headers }));
    const ticket = first.issueTicket(first.admit(show(session.credential))).credential;
    const next = new Gate(config(one), inherited(first));
    const permit = next.admit(show(ticket));
    expect(permit.expires).toBe(session.until);
    expect(outcome(() => next.issueSession(permit))).toContain("forbidden");
  });

  test("gives a session for the ticket that was printed", () => {
    const first = new Gate(config());
    const { ticket } = madeBy(first);
    const next = new Gate(config(), inherited(first));
    next.close();
    const { credential } = next.issueSession(next.admit(show(ticket)));
    expect(admitted(next, show(credential))).toBe("generated");
  });

  test("has the token that was made, with its sessions and tickets, and makes none", () => {
    const first = new Gate(config());
    const { token, ticket } = madeBy(first);
    const session = first.issueSession(first.admit(show(token))).credential;
    const next = new Gate(config(), inherited(first));
    expect(next.close()).toBeUndefined();
    const last = new Gate(config(), inherited(next));
    expect(last.close()).toBeUndefined();
    expect([token, session, ticket].map((each) => admitted(last, show(each)))).toEqual(
      Array(3).fill("generated"),
    );
  });

  test("that has tokens of its own does not take the one that was made", () => {
    const first = new Gate(config());
    const { token } = madeBy(first);
    const session = first.issueSession(first.admit(show(token))).credential;
    const generated = testToken("generated", { read: ["vm/echo"] });
    const next = new Gate(config(generated), inherited(first));
    for (const each of [token, session]) {
      expect(admitted(next, show(each))).toBe("unauthorized: the token is not known");
    }
  });
});

test("tokens are as many and as long as 256 random bits are", () => {
  const made = Array.from({ length: 100 }, newToken);
  expect(new Set(made).size).toBe(100);
  for (const token of made) expect(Buffer.from(token.slice("rpmsg_".length), "base64url")).toHaveLength(32);
  expect(allRights().token).not.toBe(allRights().token);
});
