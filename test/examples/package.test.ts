import { expect, test } from "vitest";
import { project, run } from "./project.ts";

// The package as others import it. Needs `npm run build`.

test("has the bridge, the guest and the client as entry points", async () => {
  const script = `
    for (const path of ["", "/guest", "/client"]) {
      console.log(Object.keys(await import("rpmsg-bridge" + path)).sort().join(" "));
    }
  `;
  const [bridge, guest, client] = (await runScript(script)).stdout.split("\n");
  expect(bridge).toBe("ConfigError startBridge");
  expect(guest).toBe("EmulatedGuest ServiceError echo sensor service sink source tty");
  expect(client?.split(" ")).toContain("connect");
});

test.each([
  { config: {}, level: undefined },
  { config: { logLevel: "info" }, level: 30 },
  { config: { logLevel: "error" }, level: undefined },
])("a bridge of the program logs as $config says, on standard error", async ({ config, level }) => {
  const { stdout, stderr } = await runScript(`
    import { startBridge } from "rpmsg-bridge";
    const bridge = await startBridge({ listen: "127.0.0.1:0", ...${JSON.stringify(config)} });
    await bridge.close();
  `);
  expect(stdout).toBe("");
  const lines = stderr.split("\n").filter((line) => line !== "");
  expect(lines.map((line) => (JSON.parse(line) as { level: number }).level)).toEqual(
    Array.from({ length: lines.length }, () => level),
  );
  expect(lines.length > 0).toBe(level !== undefined);
});

function runScript(script: string): Promise<{ stdout: string; stderr: string }> {
  return run(`node --input-type=module -e '${script}'`, project());
}
