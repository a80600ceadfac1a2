import type { FastifyPluginAsync } from "fastify";
import { PAGE_HEADERS } from "../access/page-headers.ts";

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>rpmsg-bridge</title>
<link rel="icon" href="data:,">
<script type="module" src="front.js"></script>
<h1>rpmsg-bridge</h1>
<p id="state"></p>
<ul id="endpoints"></ul>
<p><a href="docs">How to use it</a></p>
</html>
`;

/** Names of endpoints come from guests: they are text, never markup. */
const SCRIPT = `const stateLine = document.querySelector("#state");
const fragment = new URLSearchParams(location.hash.slice(1));
const ticket = fragment.get("ticket");
// Out of the address, and of the history, before anything else.
if (ticket !== null) history.replaceState(null, "", location.pathname + location.search);

const ask = (path, bearer, method = "GET") => {
  const headers = bearer === null ? {} : { authorization: "Bearer " + bearer };
  return fetch("api/v1/" + path, { method, headers, cache: "no-store" });
};

if (ticket !== null) {
  const answer = await ask("sessions", ticket, "POST");
  if (answer.ok) sessionStorage.setItem("token", (await answer.json()).token);
}
const answer = await ask("endpoints", sessionStorage.getItem("token"));
const body = await answer.json();
if (answer.ok) {
  stateLine.textContent = "Endpoints:";
  for (const { guest, name, path, state } of body.endpoints) {
    const item = document.createElement("li");
    item.textContent = guest + "/" + name + " (" + state + "): " + path;
    document.querySelector("#endpoints").append(item);
  }
} else stateLine.textContent = body.detail + " (" + body.code + ")";
`;

/** What a browser shows at the bridge's address: whoever has come with a ticket in it sees what there is. */
export function frontPageRoutes(): FastifyPluginAsync {
  return async (app) => {
    const options = { schema: { hide: true }, config: { public: true } };
    app.get("/", options, async (_request, reply) =>
      reply.headers(PAGE_HEADERS).type("text/html; charset=utf-8").send(PAGE),
    );
    app.get("/front.js", options, async (_request, reply) =>
      reply.headers(PAGE_HEADERS).type("text/javascript; charset=utf-8").send(SCRIPT),
    );
  };
}
