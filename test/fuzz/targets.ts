import type { FuzzTarget } from "./fuzz-target.ts";
import { messages } from "./messages.ts";
import { mutator } from "./mutator.ts";
import { nameService } from "./name-service.ts";
import { tables } from "./tables.ts";
import { vhostUser } from "./vhost-user.ts";

/** All targets, in the order in which they run. A new one is a file here and a line there. */
export const targets: readonly FuzzTarget[] = [tables, messages, nameService, mutator, vhostUser];
