# docker build -t rpmsg-bridge .
# docker run -p 8080:8080 rpmsg-bridge
#
# It listens for other machines, so that it asks for a token: the first lines of its output (docker logs) have one made
# for this run, and an address for a browser on this machine, which has the container's port: with -p 9000:8080 write
# 9000 in its place. --no-auth behind serve lets everybody in who reaches the port; a configuration with tokens (--config)
# is for all that lasts.
#
# With a QEMU guest on this machine (the directory belongs to uid 1000; QEMU connects to vm.sock in it):
# docker run -p 8080:8080 -v /run/rpmsg:/run/rpmsg rpmsg-bridge \
#   serve --listen 0.0.0.0:8080 --guest vm=vhost-user:/run/rpmsg/vm.sock
#
# It needs no capabilities and writes nowhere but to /run/rpmsg:
# --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges
FROM node:24-bookworm-slim AS build
WORKDIR /app

# The dependencies first: they change less often than the sources. No package needs its install script (koffi's binary
# comes prebuilt, in a package of its own for each platform).
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit --no-fund

COPY . .
# What koffi is built with, and its binary for another C library, stay behind.
RUN npm run build \
    && npm prune --omit=dev --ignore-scripts --no-audit --no-fund \
    && rm -rf node_modules/koffi/vendor node_modules/koffi/doc \
        node_modules/@koromix/*/musl_* node_modules/.package-lock.json \
    && find dist node_modules -type f \( -name '*.d.ts' -o -name '*.d.cts' -o -name '*.d.mts' -o -name '*.map' \) -delete

FROM node:24-bookworm-slim
LABEL org.opencontainers.image.title="rpmsg-bridge" \
      org.opencontainers.image.description="Puts RPMsg endpoints on the network: every endpoint of a guest is a WebSocket route" \
      org.opencontainers.image.licenses="Apache-2.0"

# vhost-user sockets are shared with QEMU through this directory.
RUN mkdir /run/rpmsg && chown node:node /run/rpmsg

ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json /app/LICENSE /app/rpmsg-bridge.example.yaml ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist

USER node
EXPOSE 8080
VOLUME /run/rpmsg
STOPSIGNAL SIGTERM

# Over HTTP or TLS, whichever port 8080 speaks; whose certificate it is does not matter within the container. Give
# --health-cmd of your own where --listen names another port or a Unix socket, and with clientCa.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["node", "-e", "const ask = (scheme) => new Promise((done, fail) => require(scheme).get(scheme + '://127.0.0.1:8080/healthz', { rejectUnauthorized: false }, (answer) => (answer.statusCode === 200 ? done() : fail())).on('error', fail)); ask('http').catch(() => ask('https')).then(() => process.exit(0), () => process.exit(1))"]

# No npm here: it would not pass SIGTERM on.
ENTRYPOINT ["node", "dist/server/main.js"]
CMD ["serve", "--listen", "0.0.0.0:8080"]
