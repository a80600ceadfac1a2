import type { Endpoint, Guest } from "../../schemas/index.ts";
import { DEFAULT_URL, nearUrl } from "./bridge-url.ts";
import { referenceOf } from "./reference.ts";
import { shellWord } from "./shell-word.ts";
import { alignedLines, bold } from "./terminal.ts";

/** Endpoints that are listed; a machine with more has its list elsewhere. */
const MOST_LISTED = 12;

export interface WelcomeFacts {
  /** Where the bridge listens. */
  readonly url: string;
  readonly guests: readonly Guest[];
  readonly endpoints: readonly Endpoint[];
  /** A token is needed. */
  readonly asksForToken: boolean;
}

/** For people who start the bridge on a terminal: where the dashboard is, what there is, and three lines to try. */
export function welcomeText({ url, guests, endpoints, asksForToken }: WelcomeFacts): string {
  const here = nearUrl(url);
  const isHttp = /^https?:/.test(here);
  const rows = endpoints.slice(0, MOST_LISTED).map((each) => [referenceOf(each), each.state, each.path]);
  if (endpoints.length > MOST_LISTED) rows.push([`and ${endpoints.length - MOST_LISTED} more`]);
  for (const { name, state } of guests) {
    if (!endpoints.some(({ guest }) => guest === name)) rows.push([name, state]);
  }
  return [
    "",
    isHttp ? `  Dashboard: ${bold(`${here}/`)}` : `  Listens on ${here}`,
    "",
    ...alignedLines(rows).map((line) => `  ${line}`),
    "",
    ...(isHttp
      ? ["  Try in another terminal:", ...tries(endpoints, here, asksForToken).map((each) => `    ${each}`)]
      : []),
    "",
    "  Ctrl-c ends it.",
    "",
    "",
  ].join("\n");
}

function tries(endpoints: readonly Endpoint[], url: string, asksForToken: boolean): string[] {
  const where = url === DEFAULT_URL ? "" : ` --url ${url}`;
  const token = asksForToken ? ["export RPMSG_BRIDGE_TOKEN=..."] : [];
  const tty = endpoints.find(({ name }) => name.endsWith("tty"));
  const other = endpoints.find((each) => each !== tty);
  const echo = endpoints.find(({ name }) => name === "echo") ?? other;
  const command = (text: string): string => `npx rpmsg-bridge ${text}${where}`;
  return [
    ...token,
    tty === undefined ? command("watch") : command(`connect ${shellWord(referenceOf(tty))}`),
    echo === undefined ? command("guests") : command(`send ${shellWord(referenceOf(echo))} hello --wait`),
    command("dump"),
  ];
}
