import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { parse } from "yaml";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import { Command } from "../server/cli-support.ts";
import { testDirectory } from "../server/support.ts";
import { ROOT } from "./project.ts";

const FILE = join(ROOT, "examples/compose-qemu/compose.yaml");

interface Service {
  command: string[];
  volumes: string[];
  ports?: string[];
  image?: string;
  build?: string;
}

const { services } = parse(readFileSync(FILE, "utf8")) as { services: { bridge: Service; qemu: Service } };
const available = LinuxGuest.availability();

test("both have the sockets, and only this machine has the port", () => {
  for (const { volumes } of Object.values(services)) expect(volumes).toContain("sockets:/run/rpmsg");
  expect(services.bridge.ports).toEqual(["127.0.0.1:8080:8080"]);
  expect(
    readFileSync(join(ROOT, "examples/compose-qemu", services.bridge.build ?? "", "Dockerfile"), "utf8"),
  ).toContain("/run/rpmsg");
});

describe.skipIf(!available.ok)(
  `examples/compose-qemu${available.ok ? "" : ` (not here: ${available.reason})`}`,
  () => {
    test("its commands, outside of containers, attach the guest, which is told of both services", {
      timeout: 180_000,
    }, async () => {
      const directory = testDirectory();
      const guest = process.env["RPMSG_GUEST_DIR"] || join(ROOT, ".cache/linux-guest");
      // Where the volumes lead on this machine.
      const places = {
        "/run/rpmsg": directory,
        "/scripts": join(ROOT, "scripts/linux-guest"),
        "/guest": guest,
      };
      const here = (text: string): string =>
        Object.entries(places).reduce(
          (left, [from, to]) => left.replace(new RegExp(`(^|:)${from}(?=/|$)`), `$1${to}`),
          text,
        );
      for (const volume of services.qemu.volumes.slice(1)) {
        const [from = "", to = ""] = volume.split(":");
        const known = { "/scripts": "../../scripts/linux-guest", "/guest": "../../.cache/linux-guest" };
        expect(known).toMatchObject({ [to]: from });
      }
      const serve = services.bridge.command
        .map(here)
        .map((each) => each.replace("0.0.0.0:8080", "127.0.0.1:0"));
      const url = await Command.start(serve).url();
      const [boot = "", ...args] = services.qemu.command.map(here);
      const qemu = spawn(boot, args, { stdio: ["pipe", "ignore", "ignore"] });
      const gone = once(qemu, "exit");
      const ended = gone.then(([code]) => Promise.reject(new Error(`QEMU ended with ${code}`)));
      ended.catch(() => {});
      onTestFinished(async () => {
        qemu.kill("SIGKILL");
        await gone;
      });
      // What is awaited may be told before the watch begins: then it is what it begins with.
      const watch = Command.start(["watch", "--guest", "vm0", "--url", url]);
      const awaited = new Set([
        ...["guest vm0 attached", "endpoint vm0/rpmsg-raw announced", "endpoint vm0/rpmsg-tty announced"],
      ]);
      while (awaited.size > 0) {
        const line = await Promise.race([watch.line(), ended]);
        for (const each of awaited) if (line.includes(each)) awaited.delete(each);
      }
    });
  },
);
