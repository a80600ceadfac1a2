import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vite";

/** Writes each file compressed beside itself: the bridge sends that, and never compresses anything. */
function compressed(): Plugin {
  return {
    name: "compressed",
    async writeBundle({ dir = "" }, files) {
      for (const name of Object.keys(files)) {
        const path = join(dir, name);
        await writeFile(`${path}.gz`, gzipSync(await readFile(path), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  root: import.meta.dirname,
  // The bridge may be below a path of another server.
  base: "./",
  publicDir: false,
  logLevel: "warn",
  plugins: [compressed()],
  build: {
    outDir: "../dist/web",
    emptyOutDir: true,
    target: "es2022",
    // The page's policy takes no script or style in an address.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
