import { expect, test } from "vitest";
import type { Access } from "../../schemas/index.ts";
import { rights } from "../../schemas/index.ts";
import { testBridge } from "./support.ts";
import { allRights, testToken } from "./tokens.ts";

/** The answer, or the code of the refusal. */
async function ask(
  url: string,
  query: string,
  headers: Record<string, string> = {},
): Promise<Access | string> {
  const response = await fetch(`${url}/api/v1/access${query}`, { headers });
  const body = (await response.json()) as Access & { code: string };
  return response.ok ? body : body.code;
}

const everything = { token: null, expires: null, readOnly: false, rights: [...rights] };

test("without tokens everybody may do everything, with all, one and none of the endpoints", async () => {
  const { url, endpoint } = await testBridge();
  const { id } = await endpoint("echo");
  for (const query of ["", "?guest=demo", `?guest=demo&id=${id}`, "?guest=demo&name=new"]) {
    expect([query, await ask(url, query)]).toEqual([query, everything]);
  }
});

test("of a read-only bridge nobody may send or declare, whatever the token says", async () => {
  const all = allRights();
  const strict = await testBridge({ tokens: [all.config], readOnly: true }, undefined, all.headers);
  const { id } = await strict.endpoint("echo");
  const left = ["list", "read", "admin"];
  for (const query of ["", "?guest=demo", `?guest=demo&id=${id}`, "?guest=demo&name=new"]) {
    const answer = { ...everything, token: "all", readOnly: true, rights: left };
    expect([query, await ask(strict.url, query, all.headers)]).toEqual([query, answer]);
  }
  const open = await testBridge({ readOnly: true });
  expect(await ask(open.url, "")).toEqual({ ...everything, readOnly: true, rights: left });
});

test("a token's rights are those to the endpoint, or to any that could be; what it may not see is not there", async () => {
  const expires = Date.now() + 3_600_000;
  const few = testToken(
    "few",
    { list: ["demo/tty"], read: ["demo/s*"], write: ["demo/sink"], announce: ["other/news%ff", "other/a"] },
    expires,
  );
  const all = allRights();
  const { url, endpoint } = await testBridge(
    {
      tokens: [few.config, all.config],
      guests: { demo: { kind: "emulated" }, other: { kind: "emulated" }, hidden: { kind: "emulated" } },
    },
    undefined,
    all.headers,
  );
  const idOf = async (name: string) => (await endpoint(name, ({ guest }) => guest === "demo")).id;
  const of = async (query: string) => {
    const answer = await ask(url, query, few.headers);
    if (typeof answer === "string") return answer;
    const { token, expires: end, readOnly } = answer;
    expect([token, end, readOnly]).toEqual(["few", new Date(expires).toISOString(), false]);
    return answer.rights.join(" ");
  };
  const table = [
    ["", "list read write announce"],
    ["?guest=demo", "list read write"],
    ["?guest=other", "list announce"],
    [`?guest=demo&id=${await idOf("tty")}`, "list"],
    [`?guest=demo&id=${await idOf("sensor")}`, "list read"],
    [`?guest=demo&id=${await idOf("sink")}`, "list read write"],
    [`?guest=demo&id=${await idOf("echo")}`, "endpoint-unknown"],
    ["?guest=other&name=a", "list announce"],
    ["?guest=other&name=b", ""],
    // A name is UTF-8: no byte 0xff is in it.
    ["?guest=other&name=news%C3%BF", ""],
    ["?guest=hidden", "guest-unknown"],
    ["?guest=nobody", "guest-unknown"],
    ["?name=a", "bad-request"],
    ["?id=e1", "bad-request"],
    ["?guest=demo&id=e1&name=a", "bad-request"],
    ["?guest=demo&what=ever", "bad-request"],
  ];
  for (const [query = "", expected] of table) expect([query, await of(query)]).toEqual([query, expected]);
  expect(await ask(url, "")).toBe("unauthorized");
});

test("what it says is what happens: a declaration is refused where announce is not among the rights", async () => {
  const few = testToken("few", { announce: ["demo/news"] });
  const { url } = await testBridge({ tokens: [few.config] });
  for (const name of ["news", "others"]) {
    const { rights: own } = (await ask(url, `?guest=demo&name=${name}`, few.headers)) as Access;
    const { status } = await fetch(`${url}/api/v1/guests/demo/endpoints`, {
      method: "POST",
      headers: { ...few.headers, "content-type": "application/json" },
      body: JSON.stringify({ name }),
    });
    expect([name, own.includes("announce"), status]).toEqual(
      name === "news" ? ["news", true, 201] : ["others", false, 403],
    );
  }
});

test("a session has its own end, and a ticket that asks is used", async () => {
  const all = allRights();
  const { url } = await testBridge({ tokens: [all.config] });
  const issue = async (what: string) =>
    (await (await fetch(`${url}/api/v1/${what}`, { method: "POST", headers: all.headers })).json()) as Record<
      string,
      string
    >;
  const session = await issue("sessions");
  const answer = await ask(url, "", { authorization: `Bearer ${session["token"]}` });
  expect(answer).toEqual({ ...everything, token: "all", expires: session["expires"] });
  const { ticket } = await issue("tickets");
  const shown = { authorization: `Bearer ${ticket}` };
  expect(await ask(url, "", shown)).toMatchObject({ token: "all" });
  expect(await ask(url, "", shown)).toBe("unauthorized");
});
