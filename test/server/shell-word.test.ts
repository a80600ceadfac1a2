import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { quoted, shellWord } from "../../server/cli/shell-word.ts";

test.for(["demo/echo", "it's mine", "~", "~a", "a=~", "a:~", "demo/~e7", "$HOME", "`id`", "a\nb", '"', "\\"])(
  "a shell reads %j as one word",
  (text) => {
    for (const word of [shellWord(text), quoted(text)]) {
      expect(execFileSync("bash", ["-c", `printf %s ${word}`]).toString()).toBe(text);
    }
  },
);

test("what needs no quotes has none", () => {
  expect(shellWord("demo/echo@1024")).toBe("demo/echo@1024");
  expect(shellWord("demo/~e7")).toBe("demo/~e7");
});
