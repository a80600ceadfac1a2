import { CodedError, featureNames, openTransport, Poller, VhostUserBackend } from "../../rpmsg/index.ts";
import type { GuestConfig } from "../../schemas/index.ts";
import type { Attachment, GuestLink } from "./attachment.ts";

type VhostUserConfig = Extract<GuestConfig, { kind: "vhost-user" }>;

/** Buffers that the F_BUFSZ dialect offers: the customary ones. */
const BUFFER_SIZES = { txBufferSize: 512, rxBufferSize: 512 };

/**
 * A guest behind a vhost-user socket: QEMU, User Mode Linux, or an emulated guest in another process. Frontends come
 * and go; the endpoints of the host stay.
 * @throws SystemError socket: the path cannot be listened on
 */
export function vhostUserLink(config: VhostUserConfig, attachment: Attachment): GuestLink {
  const { log, device } = attachment;
  const report = (event: string) => (error: unknown) => {
    const code = error instanceof CodedError ? error.code : "internal";
    log.warn(event, { code, reason: error instanceof Error ? error.message : String(error) });
  };
  const poller = new Poller({ onError: report("poller-error") });
  let backend: VhostUserBackend | undefined;

  const serve = (fd: number, closed: () => void): VhostUserBackend => {
    const options = config.dialect === "linux-bufsz" ? { bufferSizes: BUFFER_SIZES } : {};
    const refused = report("frontend-refused");
    const events = {
      onRefused(error: Error) {
        attachment.frontendRefused(error);
        refused(error);
      },
      onClose(error: Error | undefined) {
        backend = undefined;
        attachment.stateChanged();
        if (error === undefined) {
          log.info("frontend-gone", {});
        } else {
          attachment.frontendRefused(error);
          report("frontend-closed")(error);
        }
        closed();
      },
    };
    backend = new VhostUserBackend(fd, poller, device, events, options);
    attachment.stateChanged();
    log.info("frontend-connected", {});
    return backend;
  };
  const transport = openTransport(config.mode, config.path, poller, serve, report("transport-error"));

  return {
    kind: "vhost-user",
    get connected() {
      return backend !== undefined;
    },
    get features() {
      return backend === undefined ? null : featureNames(backend.features);
    },
    get queues() {
      const [response, request] = backend?.queueSizes ?? [0, 0];
      return response === 0 && request === 0 ? null : { response, request };
    },
    close: () => transport.close(),
  };
}
