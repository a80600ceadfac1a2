import type { GuestError } from "../../rpmsg/index.ts";
import { CodedError, featureNames, openTransport, Poller, VhostUserBackend } from "../../rpmsg/index.ts";
import type { GuestConfig } from "../../schemas/index.ts";
import type { Attachment, GuestLink } from "./attachment.ts";
import { IsolatedTransport } from "./isolated-transport.ts";
import type { Report } from "./isolation-control.ts";
import type { LinkSnapshot } from "./vhost-user-snapshot.ts";

type FrontendEvent = "poller-error" | "frontend-refused" | "frontend-closed" | "transport-error";
type VhostUserConfig = Extract<GuestConfig, { kind: "vhost-user" }>;

/** Buffers that the F_BUFSZ dialect offers: the customary ones. */
const BUFFER_SIZES = { txBufferSize: 512, rxBufferSize: 512 };

/**
 * A guest behind a vhost-user socket: QEMU, User Mode Linux, or an emulated guest in another process. Frontends come
 * and go; the endpoints of the host stay.
 * @param inherited where another process stopped: the link goes on from there with `resume`
 * @throws SystemError socket: the path cannot be listened on
 */
export function vhostUserLink(
  config: VhostUserConfig,
  attachment: Attachment,
  inherited?: LinkSnapshot,
): GuestLink {
  const { log, device } = attachment;
  if (config.poll === "adaptive") device.pollAdaptively();
  const bufferSizes = config.dialect === "linux-bufsz" ? BUFFER_SIZES : undefined;
  const report = (event: FrontendEvent) => (error: unknown) => {
    log.write(event, { code: codeOf(error), reason: error instanceof Error ? error.message : String(error) });
  };
  const poller = new Poller({ onError: report("poller-error") });
  let backend: VhostUserBackend | undefined;
  /** Of an isolated guest; those of the backend are the relay's. */
  let guestQueues: LinkSnapshot["guestQueues"] = inherited?.guestQueues ?? null;
  let restored = inherited?.backend;

  const serve = (fd: number, closed: () => void): VhostUserBackend => {
    const options = bufferSizes === undefined ? {} : { bufferSizes };
    const refused = report("frontend-refused");
    const events = {
      onRefused(error: Error) {
        attachment.frontendRefused(codeOf(error));
        refused(error);
      },
      onUnsealed() {
        log.write("memory-not-sealed", { advice: "use memory-backend-memfd, or isolation: process" });
      },
      onClose(error: Error | undefined) {
        backend = undefined;
        guestQueues = null;
        attachment.stateChanged();
        if (error === undefined) {
          log.write("frontend-gone", {});
        } else {
          attachment.frontendRefused(codeOf(error));
          report("frontend-closed")(error);
        }
        closed();
      },
    };
    const from = restored ?? fd;
    restored = undefined;
    backend = new VhostUserBackend(from, poller, device, events, options);
    // One that has been there before is no news.
    if (typeof from === "object") return backend;
    attachment.stateChanged();
    log.write("frontend-connected", {});
    return backend;
  };
  const { mode, path } = config;
  const failed = report("transport-error");
  const transport =
    config.isolation === "process"
      ? new IsolatedTransport(
          config,
          bufferSizes,
          poller,
          serve,
          {
            onRings(sizes) {
              guestQueues = sizes;
            },
            onReport: (each) => reported(attachment, each),
            onUnsealed: () => log.write("memory-not-sealed", { advice: "use memory-backend-memfd" }),
            onExited: (how) => log.write("guest-process-exited", how),
            onError: failed,
          },
          inherited,
        )
      : openTransport(mode, path, poller, serve, failed, inherited?.transport);

  return {
    kind: "vhost-user",
    get connected() {
      return backend !== undefined;
    },
    get features() {
      return backend === undefined ? null : featureNames(backend.features);
    },
    get queues() {
      if (guestQueues !== null) return guestQueues;
      const [response, request] = backend?.queueSizes ?? [0, 0];
      return response === 0 && request === 0 ? null : { response, request };
    },
    close: () => transport.close(),
    pause() {
      transport.pause();
      backend?.pause();
    },
    resume() {
      backend?.resume();
      transport.resume();
    },
    snapshot: () => ({
      mode,
      path,
      transport: { listener: transport.listener, connection: undefined },
      backend: backend?.snapshot(),
      isolated: transport instanceof IsolatedTransport ? transport.snapshot() : undefined,
      guestQueues,
    }),
  };
}

/** Events of the log for what the process of an isolated guest reports, as they are named without isolation. */
const REPORTED = {
  refused: "frontend-refused",
  closed: "frontend-closed",
  transport: "transport-error",
} as const;

function reported(attachment: Attachment, { event, code, reason, queue, count }: Report): void {
  if (event === "broken") {
    attachment.queueBroken(queue ?? 0, code as GuestError["code"], reason, count);
    return;
  }
  if (event !== "transport") attachment.frontendRefused(code, count);
  attachment.log.write(REPORTED[event], { code, reason });
}

function codeOf(error: unknown): CodedError["code"] | "internal" {
  return error instanceof CodedError ? error.code : "internal";
}
