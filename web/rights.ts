import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Access, Right } from "../schemas/index.ts";
import { access } from "./api.ts";
import { arrivals } from "./live.ts";

/**
 * What may be done with an endpoint, or without an id with some endpoint of a guest: asked before anybody tries.
 * @returns undefined until the bridge has said; what it then refuses it still tells
 */
export function useAccess(guest: string, id?: string): Access | undefined {
  const known = useSignal<Access | undefined>(undefined);
  const asked = arrivals.value;
  useEffect(() => {
    let gone = false;
    const ask = async (): Promise<void> => {
      const answer = await access({ guest, id });
      if (!gone) known.value = answer;
    };
    // An endpoint that has just gone, a bridge that is away: what was known stands.
    ask().catch(() => {});
    return () => {
      gone = true;
    };
  }, [guest, id, asked]);
  return known.value;
}

const what: Readonly<Record<Right, string>> = {
  list: "see it",
  read: "get its messages",
  write: "send to it",
  announce: "announce or withdraw it",
  admin: "choose its addresses",
};

/** Why something cannot be done here, for people; undefined where it can, or where that is not known. */
export function refusalOf(known: Access | undefined, right: Right): string | undefined {
  if (known === undefined || known.rights.includes(right)) return undefined;
  if (known.readOnly && (right === "write" || right === "announce")) {
    return "This bridge is read-only: it sends nothing to guests, and declares nothing.";
  }
  return `The token "${known.token}" of this page may not ${what[right]}: it has no right "${right}".`;
}
