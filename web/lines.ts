import type { Endpoint, Guest } from "../schemas/index.ts";

/** A line to copy: what it is, and its text. */
export interface Line {
  readonly title: string;
  readonly text: string;
  /** What has to be known. */
  readonly hint?: string;
}

/** Where the token is, for who has one: never in the line itself. */
const TOKEN = "$RPMSG_BRIDGE_TOKEN";

/** For a shell. */
export function quoted(text: string): string {
  // A tilde means a home at the beginning, and to bash after what looks like an assignment.
  return /^(?!~|.*[=:]~)[\w@%+=:,./~-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * How other programs talk to an endpoint.
 * @param bridge URL of the bridge, with a slash at its end
 * @param needsToken whether it asks for one
 */
export function endpointLines(
  { guest, id, path, name }: Pick<Endpoint, "guest" | "id" | "path" | "name">,
  bridge: URL,
  needsToken: boolean,
): Line[] {
  const http = new URL(path.replace(/^\//, ""), bridge).href;
  const socket = http.replace(/^http/, "ws");
  const messages = new URL(`api/v1/guests/${guest}/endpoints/${id}/messages`, bridge).href;
  const header = needsToken ? ` -H "Authorization: Bearer ${TOKEN}"` : "";
  const options = needsToken ? ", { token: process.env.RPMSG_BRIDGE_TOKEN }" : "";
  // What has to be written otherwise in a path, its name is not typed.
  const plain = path === `/ws/v1/${guest}/${name}`;
  return [
    { title: "wscat", text: `npx wscat -c ${quoted(socket)}${header}` },
    {
      title: "curl",
      text: `curl -X POST${header} -H 'content-type: application/json' -d '{"data":"hello","wait":1000}' ${quoted(messages)}`,
      hint: "Sends one message and waits a second for the first reply. The id in the address is another one after a reset of the guest.",
    },
    {
      title: "TypeScript",
      text: [
        'import { connect } from "rpmsg-bridge/client";',
        "",
        `const channel = await connect(${JSON.stringify(socket)}${options});`,
        'await channel.send("hello");',
        "for await (const message of channel) console.log(message.text);",
      ].join("\n"),
      hint: "In browsers and Node; before Node 22 give it a WebSocket, as docs/client.md says.",
    },
    {
      title: "Command line",
      text: `npx rpmsg-bridge connect --url ${quoted(bridge.href)} ${quoted(`${guest}/${plain ? name : `~${id}`}`)}`,
      ...(needsToken && { hint: "It takes the token from RPMSG_BRIDGE_TOKEN." }),
    },
  ];
}

/**
 * How a virtual machine is attached.
 * @param path of the guest's socket
 */
export function qemuLines(guest: Pick<Guest, "name">, path: string): Line[] {
  // QEMU splits at commas.
  const socket = quoted(`socket,id=rpmsg,path=${path.replaceAll(",", ",,")}`);
  return [
    {
      title: "Bridge",
      text: `npx rpmsg-bridge serve --guest ${quoted(`${guest.name}=vhost-user:${path}`)} --announce ${guest.name}/rpmsg-raw`,
      hint: "Or guests.NAME in its configuration: the socket is the one that is there.",
    },
    {
      title: "QEMU",
      text: [
        "qemu-system-arm -M virt,highmem=off,memory-backend=mem0 -cpu cortex-a15 -m 256 \\",
        "  -object memory-backend-memfd,id=mem0,size=256M,share=on \\",
        `  -chardev ${socket} \\`,
        "  -device vhost-user-test-device-pci,chardev=rpmsg,virtio-id=7,num_vqs=2,vq_size=256 \\",
        '  -nodefaults -display none -serial stdio -kernel vmlinuz -initrd initrd -append "console=ttyAMA0"',
      ].join("\n"),
      hint: "QEMU 11 or newer, and a kernel with virtio_rpmsg_bus and rpmsg_char.",
    },
    {
      title: "Without a virtual machine",
      text: `npx rpmsg-bridge guest --socket ${quoted(path)}`,
      hint: "The emulated guest, as a process of its own.",
    },
  ];
}
