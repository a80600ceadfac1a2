// draw-chart.js: a chart as SVG on standard output, from its vega-lite specification on standard input.
// Plain JavaScript in a process of its own: the types of vega want those of a browser.
import { text } from "node:stream/consumers";
import { parse, View } from "vega";
import { compile } from "vega-lite";

const { spec } = compile(JSON.parse(await text(process.stdin)));
const view = new View(parse(spec), { renderer: "none" });
process.stdout.write(`${await view.toSVG()}\n`);
view.finalize();
