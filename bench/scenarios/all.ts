import type { Scenario } from "../scenario.ts";
import { deviceQueues } from "./device-queue.ts";
import { directories } from "./directory.ts";
import { echoes } from "./echo.ts";
import { fanOuts } from "./fan-out.ts";
import { guestScenarios } from "./guests.ts";
import { idleClients } from "./idle-clients.ts";
import { isolations } from "./isolation.ts";
import { linuxGuests } from "./linux-guest.ts";
import { starting } from "./start.ts";

/** In the order in which they are run and shown. */
export const scenarios: readonly Scenario[] = [
  ...deviceQueues,
  ...echoes,
  ...fanOuts,
  ...linuxGuests,
  ...guestScenarios,
  idleClients,
  ...directories,
  starting,
  ...isolations,
];
