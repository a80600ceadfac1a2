import { EmulatedGuest, service } from "rpmsg-bridge/guest";

/** A board with a thermometer: it answers "read", and counts its answers since it booted. */
export default function makeBoard() {
  return new EmulatedGuest({
    services: {
      thermometer: service(() => {
        let readings = 0;
        return ({ text, reply }) => {
          if (text === "read") reply(JSON.stringify({ celsius: 21.5, readings: ++readings }));
        };
      }),
    },
  });
}
