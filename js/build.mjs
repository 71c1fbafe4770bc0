// Builds the widgets' bundles into the Python package; `node build.mjs --check` fails when the committed ones differ.
// Nothing that could vary between machines goes in: no source map, no banner, no date, a pinned esbuild.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "llamatelemetry_jupyter", "widgets", "static");
// Every instance of a widget sends its bundle over the kernel's uncompressed websocket.
/** @type {Record<string, number>} */
const LIMIT_BYTES = {
  "dashboard.js": 105_000,
  "chat.js": 150_000,
  "tokens.js": 20_000,
  "tokens.css": 10_000,
  "hostcheck.js": 20_000,
};
const STYLE_LIMIT_BYTES = 26_000;

const result = await build({
  entryPoints: Object.fromEntries(
    ["dashboard", "chat", "tokens", "hostcheck"].map((name) => [name, join(here, "src", `${name}.js`)]),
  ),
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox113", "safari16.2"], // color-mix(); nesting is written out
  charset: "ascii",
  legalComments: "none",
  outdir: target,
  write: false,
  absWorkingDir: here,
});

// What is bundled is under its own licence, which goes where it goes.
const { dependencies } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const licences = Object.entries(dependencies).map(([name, version]) => {
  const text = readFileSync(join(here, "node_modules", name, "LICENSE"), "utf8");
  return `${name} ${version}, in chat.js\n\n${text.trim()}\n`;
});
const notice = {
  path: join(target, "LICENSES.txt"),
  contents: Buffer.from(licences.join(`\n${"-".repeat(80)}\n\n`)),
};

let stale = false;
for (const file of [...result.outputFiles, notice]) {
  const name = file.path.slice(target.length + 1);
  const limit = LIMIT_BYTES[name] ?? STYLE_LIMIT_BYTES;
  if (file.contents.byteLength > limit) {
    throw new Error(`${name}: ${file.contents.byteLength} bytes are more than ${limit}`);
  }
  if (process.argv.includes("--check")) {
    const same = existsSync(file.path) && readFileSync(file.path).equals(file.contents);
    stale ||= !same;
    console.log(`${name} ${same ? "is up to date" : "differs from its source: npm run build"}`);
  } else {
    writeFileSync(file.path, file.contents);
    console.log(`${name} ${(file.contents.byteLength / 1000).toFixed(1)} kB`);
  }
}
process.exitCode = stale ? 1 : 0;
