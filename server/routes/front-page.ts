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
<form id="enter" hidden>
<label>Token <input id="token" type="password" autocomplete="off" required></label>
<button>Open</button>
</form>
<ul id="endpoints"></ul>
<p><a href="docs">How to use it</a></p>
</html>
`;

/** Names of endpoints come from guests: they are text, never markup. */
const SCRIPT = `const [stateLine, form, field, list] = ["state", "enter", "token", "endpoints"].map((id) =>
  document.getElementById(id),
);
const fragment = new URLSearchParams(location.hash.slice(1));
const ticket = fragment.get("ticket");
// Out of the address, and of the history, before anything else.
if (ticket !== null) history.replaceState(null, "", location.pathname + location.search);

/** What comes of it, or why it does not come. */
const ask = async (path, bearer, method = "GET") => {
  try {
    const headers = bearer === null ? {} : { authorization: "Bearer " + bearer };
    const answer = await fetch("api/v1/" + path, { method, headers, cache: "no-store" });
    const body = await answer.json();
    return answer.ok ? { body } : { problem: body };
  } catch (error) {
    return { problem: { code: "unreachable", detail: error.message } };
  }
};

/** Changes a ticket, or a token, for a session, which is all that is kept. */
const enter = async (bearer) => {
  const { body, problem } = await ask("sessions", bearer, "POST");
  if (body !== undefined) sessionStorage.setItem("token", body.token);
  return problem;
};

const tell = (problem, more = "") => {
  stateLine.textContent = (problem ? problem.detail + " (" + problem.code + "). " : "") + more;
};

const show = async (refused) => {
  const token = sessionStorage.getItem("token");
  const { body, problem } = await ask("endpoints", token);
  form.hidden = problem?.code !== "unauthorized";
  if (!form.hidden) {
    sessionStorage.removeItem("token");
    const reason = refused ?? (token === null ? undefined : problem);
    tell(reason, "Open the address that the bridge printed when it started, which works once, or give a token:");
  } else if (problem !== undefined) tell(problem);
  else {
    tell(undefined, body.endpoints.length === 0 ? "No endpoints." : "Endpoints:");
    const lines = body.endpoints.map((each) => each.guest + "/" + each.name + " (" + each.state + "): " + each.path);
    if (body.next !== null) lines.push("... and more");
    list.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  }
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const refused = await enter(field.value.trim());
  if (refused !== undefined) return tell(refused);
  field.value = "";
  await show();
});
await show(ticket === null ? undefined : await enter(ticket));
`;

/**
 * What a browser shows at the bridge's address: whoever has come with a ticket in it, or has a token, sees
 * what there is.
 */
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
