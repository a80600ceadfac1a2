import type { Channel } from "../../client/index.ts";

/** Messages that are on their way at a time. */
const WINDOW = 200;

/**
 * Sends numbered messages to an echo, many on their way at a time, and takes the answers: each once, and in order.
 * @param enough asked before each message, with the number of those before it
 * @returns how many there were
 */
export async function echoed(
  channel: Channel,
  name: string,
  enough: (sent: number) => boolean,
): Promise<number> {
  const results: Promise<void>[] = [];
  let sent = 0;
  let got = 0;
  channel.on("dropped", (event) => {
    throw new Error(`${name}: dropped ${JSON.stringify(event)}`);
  });
  for (;;) {
    while (sent - got < WINDOW && !enough(sent)) {
      // A rejection is looked at in the end.
      const result = channel.send(`${name}/${sent++}`);
      result.catch(() => {});
      results.push(result);
    }
    if (got === sent) break;
    const { text } = await channel.receive();
    if (text !== `${name}/${got}`) throw new Error(`${text} comes where ${name}/${got} is to come`);
    got++;
  }
  await Promise.all(results);
  return sent;
}
