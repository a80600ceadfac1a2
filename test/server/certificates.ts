import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { getCurrentTest } from "vitest/suite";
import { missingTool } from "../support/missing-tool.ts";

/** Files in PEM. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const missing = missingTool("openssl", "openssl", "version");

/** An authority of certificates of tests, made with openssl: a test that makes one where there is none is left out. */
export class Authority implements Certificate {
  readonly cert: string;
  readonly key: string;
  readonly #directory: string;

  constructor(directory: string, name = "authority") {
    if (missing !== undefined) getCurrentTest()?.context.skip(missing);
    this.#directory = directory;
    this.cert = join(directory, `${name}.pem`);
    this.key = join(directory, `${name}.key`);
    const subject = ["-subj", `/CN=${name}`, "-days", "2"];
    openssl("req", "-x509", ...newKey, "-keyout", this.key, "-out", this.cert, ...subject);
  }

  get pem(): Buffer {
    return readFileSync(this.cert);
  }

  /** A certificate for localhost and 127.0.0.1, and for clients. */
  issue(name: string): Certificate {
    const [cert, key, request, names] = ["pem", "key", "csr", "ext"].map((each) =>
      join(this.#directory, `${name}.${each}`),
    ) as [string, string, string, string];
    writeFileSync(names, "subjectAltName=DNS:localhost,IP:127.0.0.1");
    openssl("req", ...newKey, "-keyout", key, "-out", request, "-subj", `/CN=${name}`);
    const signer = ["-CA", this.cert, "-CAkey", this.key, "-CAcreateserial"];
    openssl("x509", "-req", "-in", request, "-out", cert, ...signer, "-days", "2", "-extfile", names);
    return { cert, key };
  }
}

const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { stdio: "pipe" });
}
