import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { scenarios } from "./scenarios.ts";
import { openTheatre } from "./stage.ts";

describe("in Node, with the WebSocket of ws", () => {
  test.each(Object.entries(scenarios))("%s", async (_name, scenario) => {
    const { url, control } = await openTheatre();
    await expect(scenario({ url, control, WebSocket })).resolves.toBeUndefined();
  });
});
