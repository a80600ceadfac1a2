import { build } from "vite";

/** The code of a module and all that it imports, minified. */
export async function bundle(entry: string): Promise<string> {
  const built = await build({
    configFile: false,
    logLevel: "error",
    build: {
      write: false,
      minify: true,
      target: "es2022",
      modulePreload: false,
      rolldownOptions: { input: entry, preserveEntrySignatures: "strict" },
    },
  });
  const outputs = (Array.isArray(built) ? built : [built]) as { output?: { code?: string }[] }[];
  const [first, ...more] = outputs.flatMap(({ output = [] }) => output);
  if (first?.code === undefined || more.length > 0) throw new Error("not one piece of code");
  return first.code;
}
