import fc from "fast-check";
import type { Service, ServiceContext, ServiceFactory } from "../../guest/index.ts";
import { EmulatedGuest, echo } from "../../guest/index.ts";
import { encodeNameService, NAME_SERVICE_ADDRESS } from "../../rpmsg/index.ts";

/** What steers a terminal, turns the reading direction or is not seen: it is in nothing that people are shown. */
export const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** Bytes of UTF-8 text, one character a byte. */
function bytesOf(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/** Names that have broken other software, one character a byte; none has more than 31. */
export const hostileNames: readonly string[] = [
  // Paths and URLs.
  ...[
    "/",
    ".",
    "..",
    "../../etc/passwd",
    "a/b",
    "\\",
    "%",
    "%2e%2e%2f",
    "%00",
    "?share=exclusive",
    "#",
    "a@1040",
    "@",
    "~",
  ],
  ...["~e1", "&name=x", " ", "a b", "+", ";", ":", "//x", "*"],
  // Lines, terminals, shells.
  ...[
    "\n",
    "\r\n\r\nGET / HTTP/1.1",
    "\t",
    "\u001b[2J",
    "\u001b]0;title\u0007",
    "\u009b1m",
    "\u007f",
    "$(touch ran)",
  ],
  ...["`touch ran`", "'; touch ran; '", '"; touch ran; "', "-rf", "--url=http://x", "| sh", "!!"],
  // Pages, JSON, metrics, logs, JavaScript.
  ...[
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;",
    "javascript:alert(1)",
    '"',
    "'",
    '"}',
  ],
  ...[
    '"} 1\n# HELP x',
    'x",guest="y',
    "{}",
    '\\"',
    "\\n",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "null",
  ],
  // What looks like something else: bidi, zero width, byte order mark, other slashes.
  ...[
    "\u202egnp.exe",
    "\u2066a\u2069",
    "a\u200bb",
    "\ufeffa",
    "\u2028",
    "a\u0301",
    "\u00e1",
    "\u2215",
    "\uff0e\uff0e",
  ].map(bytesOf),
  // Not UTF-8: halves, too long, surrogates, beyond the last one; look the same to people.
  ...[
    "\u00ff",
    "\u00fe",
    "a\u00ff",
    "a\u00fe",
    "\u00c3",
    "\u00c0\u00af",
    "\u00ed\u00a0\u0080",
    "\u00f5\u0080\u0080\u0080",
  ],
  ...["\u0080", "\u00ff".repeat(31), "x".repeat(31), bytesOf("\u{1f980}").repeat(7)],
];

/** A name of any bytes but zero, one character a byte; often one of the hostile ones. */
export const anyName: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(...hostileNames),
  fc
    .uint8Array({ min: 1, max: 255, minLength: 1, maxLength: 31 })
    .map((bytes) => Buffer.from(bytes).toString("latin1")),
  // Few characters of all those that mean something somewhere.
  fc
    .array(fc.constantFrom(...Array.from("/.%@~?#&\"'\\<>{}\n\r\u001b\u00e2\u0080\u00ae\u00ff")), {
      minLength: 1,
      maxLength: 31,
    })
    .map((characters) => characters.join("")),
);

/** A guest that announces these names, each at an address of its own from 2000 on, and answers with what it gets. */
export function guestOf(names: readonly string[]): EmulatedGuest {
  const service =
    (name: string): ServiceFactory =>
    (context: ServiceContext): Service => {
      const message = encodeNameService({ name, address: context.address, created: true });
      const tell = () => context.send(NAME_SERVICE_ADDRESS, message);
      let told = tell();
      const service = echo(context);
      return {
        ...service,
        onMessage: (...args) => service.onMessage(...args),
        onWritable() {
          if (!told) told = tell();
          service.onWritable?.();
        },
      };
    };
  return new EmulatedGuest({
    services: Object.fromEntries(
      names.map((name, i) => [`s${i}`, { service: service(name), ns: "none" as const, address: 2000 + i }]),
    ),
  });
}
