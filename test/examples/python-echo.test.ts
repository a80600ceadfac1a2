import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { TestContext } from "vitest";
import { expect, onTestFinished, test } from "vitest";
import { EmulatedGuest, echo, service } from "../../guest/index.ts";
import { startBridge } from "../../server/index.ts";
import { missingTool } from "../support/missing-tool.ts";

const program = fileURLToPath(new URL("../../examples/python-echo/echo.py", import.meta.url));

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs the example against a bridge with this guest `demo`. */
async function run(context: TestContext, demo: EmulatedGuest): Promise<Result> {
  const noPython = missingTool("python3");
  if (noPython !== undefined) context.skip(noPython);
  const limits = { drainTimeout: 1000 };
  const bridge = await startBridge({ listen: "127.0.0.1:0", limits }, { guests: { demo } });
  onTestFinished(() => bridge.close());
  return new Promise((resolve) => {
    execFile("python3", ["-I", program, bridge.url], (error, stdout, stderr) => {
      resolve({
        code: typeof error?.code === "number" ? error.code : error === null ? 0 : -1,
        stdout,
        stderr,
      });
    });
  });
}

test("the client in Python gets all back, over every subprotocol", async (context) => {
  const { code, stdout, stderr } = await run(context, new EmulatedGuest());
  expect(stderr).toBe("");
  expect(code).toBe(0);
  const lines = stdout.trim().split("\n");
  expect(lines).toContain("demo/sink at /ws/v1/demo/sink, connected");
  for (const length of [1, 125, 126, 496]) {
    expect(lines).toContain(`rpmsg.v1.raw: ${length} bytes came back`);
    expect(lines).toContain(`rpmsg.v1.json: ${length} bytes sent and came back`);
    expect(lines).toContain(`rpmsg.v1.mux: ${length} bytes of 496 sent and came back, on both`);
  }
  expect(lines.at(-1)).toBe("all came back");
});

test("and says where one does not", async (context) => {
  const reversed = service(
    () =>
      ({ bytes, reply }) =>
        reply(bytes.toReversed()),
  );
  const { code, stderr } = await run(context, new EmulatedGuest({ services: { echo: reversed } }));
  expect(code).toBe(1);
  expect(stderr).toContain("failed: 125 bytes: sent 0708");
});

test("and where there is nobody to answer", async (context) => {
  const { code, stderr } = await run(context, new EmulatedGuest({ services: { other: echo } }));
  expect(code).toBe(1);
  expect(stderr).toBe("failed: there is no endpoint demo/echo\n");
});
