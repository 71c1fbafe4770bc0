// The chat's pure parts: what a model writes becomes harmless Markdown, piece by piece, and no message tears the transcript.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { insertCells } from "../src/chat/clipboard.js";
import { highlight } from "../src/chat/highlight.js";
import { Growing, isWeb } from "../src/chat/markdown.js";
import { asTurn, Transcript } from "../src/chat/transcript.js";

const TEXT = `# Title

Some *text* with \`code\`, **bold** and a [link](https://example.org/a?b=c).

1. one
2. two

   with a paragraph
3. three

- [x] done
- [ ] open

| a | b |
|---|---|
| 1 | 2 |

\`\`\`python
def f(x):
    return "a" # no **bold** here

print(f(1))
\`\`\`

> quoted
> on

Setext
======

    indented code

Last paragraph with https://example.org.`;

/** What tests/hostile.py knows of attacks: each must end as text. @type {string[]} */
const HOSTILE = JSON.parse(
  execFileSync("python3", [new URL("../../tests/hostile.py", import.meta.url).pathname], {
    encoding: "utf8",
  }),
);
const TAGS =
  /^<\/?(?:p|br|hr|h[1-6]|strong|em|del|code|pre|blockquote|ul|ol|li|table|thead|tbody|tr|th|td|a|span)\b/;

const whole = (text) => {
  const { closed, open } = new Growing().take(text, true);
  assert.equal(open, "");
  return closed.join("");
};

/** The HTML that stands on the page after the text has come in these pieces. */
function inPieces(pieces, growing = new Growing()) {
  let text = "";
  let closed = [];
  let last = "";
  pieces.forEach((piece, i) => {
    text += piece;
    const now = growing.take(text, i === pieces.length - 1);
    if (now.fresh) closed = [];
    closed.push(...now.closed);
    last = now.open;
  });
  return closed.join("") + last;
}

/** Repeats for a seed. */
function* numbers(seed) {
  for (let x = seed; ; ) {
    x = (x * 1103515245 + 12345) % 2 ** 31;
    yield x / 2 ** 31;
  }
}

function cut(text, seed) {
  const random = numbers(seed);
  const pieces = [];
  for (let at = 0; at < text.length; ) {
    const size = 1 + Math.floor(random.next().value * 12);
    pieces.push(text.slice(at, at + size));
    at += size;
  }
  return pieces;
}

test("a text that came in pieces is the same as in one", () => {
  for (let seed = 1; seed <= 200; seed += 1)
    assert.equal(inPieces(cut(TEXT, seed)), whole(TEXT), `seed ${seed}`);
  assert.equal(inPieces([...TEXT]), whole(TEXT));
});

test("only the end of a growing text is parsed again", () => {
  const growing = new Growing();
  const paragraph = "Some words that make a paragraph of a usual length, one of many.\n\n";
  let text = "";
  let open = 0;
  for (let i = 0; i < 400; i += 1) {
    text += paragraph;
    const now = growing.take(text, false);
    open = Math.max(open, now.open.length);
    assert.ok(now.closed.length <= 1);
  }
  assert.ok(open < paragraph.length * 3);
});

test("another text begins anew", () => {
  const growing = new Growing();
  growing.take("one\n\ntwo\n\nthree is long enough to close\n\n", false);
  const now = growing.take("other", true);
  assert.deepEqual([now.fresh, now.closed], [true, ["<p>other</p>\n"]]);
});

test("nothing that a model writes becomes an element or an attribute of its own", () => {
  for (const attack of HOSTILE) {
    for (const html of [
      whole(attack),
      whole(`before ${attack} after`),
      attack.length < 300 ? inPieces([...attack, "\n\n", ...attack]) : "",
    ]) {
      for (const [tag] of html.matchAll(/<[^>]*>/g)) {
        assert.match(tag, TAGS, `${attack} → ${tag}`);
        const attributes = tag
          .replace(/^<\/?\w+/, "")
          .replace(/\s(?:href|data-lang|data-raw|start|align)="[^"]*"/g, "");
        assert.match(attributes, /^\s*\/?>$/, `${attack} → ${tag}`);
      }
      for (const [, href] of html.matchAll(/href="([^"]*)"/g)) assert.ok(isWeb(href), `${attack} → ${href}`);
    }
  }
});

test("pictures are named, not fetched; links lead to the web only", () => {
  assert.equal(whole("![a cat](https://example.org/cat.png)"), "<p>[image: a cat]</p>\n");
  assert.equal(whole("[a](https://example.org)"), '<p><a href="https://example.org">a</a></p>\n');
  assert.equal(whole("[a](mailto:a@example.org) [b](/lab) [c](ftp://x)"), "<p>a b c</p>\n");
});

test("a text that would keep a browser busy is shown as it was written", () => {
  const begun = performance.now();
  for (const text of [
    "[".repeat(60_000),
    ">".repeat(60_000),
    "*a ".repeat(40_000),
    `|${"a|".repeat(30_000)}`,
    "- ".repeat(30_000),
  ]) {
    const html = whole(text);
    assert.ok(html.includes("data-raw"));
    inPieces([text.slice(0, 3000), text.slice(3000)]);
  }
  assert.ok(performance.now() - begun < 8000, `${performance.now() - begun} ms`);
});

test("code is coloured by its parts, and no character is lost", () => {
  const code = 'def f(x):  # say "hi"\n    return "a\\"b" + str(12.5)  # …';
  const parts = highlight(code, "python");
  assert.equal(parts.map(([, text]) => text).join(""), code);
  const kinds = (kind) => parts.filter(([k]) => k === kind).map(([, text]) => text);
  assert.deepEqual(kinds("keyword"), ["def", "return"]);
  assert.deepEqual(kinds("comment"), ['# say "hi"', "# …"]);
  assert.deepEqual(kinds("string"), ['"a\\"b"']);
  assert.deepEqual(kinds("number"), ["12.5"]);
  assert.deepEqual(highlight("let a = 1; /* b\nc */ // d", "js").filter(([k]) => k === "comment").length, 2);
  assert.deepEqual(highlight("for a in b", ""), [["", "for a in b"]]);
  for (const attack of [...HOSTILE, '"'.repeat(20_000), "/*".repeat(10_000)])
    for (const lang of ["js", "python", "sql", "constructor"])
      assert.equal(
        highlight(attack, lang)
          .map(([, text]) => text)
          .join(""),
        attack,
      );
});

const turn = (id, more = {}) => ({ id, role: "assistant", text: "", state: "running", seq: 0, ...more });
const piece = (seq, text, more = {}) => ({
  type: "piece",
  turn: 2,
  seq,
  text,
  reasoning: "",
  tokens: seq,
  progress: null,
  ...more,
});

test("pieces go on with their turn; one that comes twice or too early changes nothing", () => {
  const transcript = new Transcript();
  transcript.load([turn(1, { role: "user", text: "hi", state: "done" }), turn(2)]);
  assert.ok(transcript.apply(piece(1, "a")));
  assert.ok(!transcript.apply(piece(1, "a")));
  assert.ok(transcript.apply(piece(2, "b")));
  assert.equal(transcript.running.text, "ab");
  assert.ok(!transcript.apply(piece(4, "d")));
  assert.deepEqual([...transcript.missing], [2]);
  transcript.replace(turn(2, { text: "abcd", seq: 4 }));
  assert.deepEqual([transcript.running.text, transcript.missing.size], ["abcd", 0]);
  assert.ok(transcript.apply(piece(5, "e")));
  // The list of turns is as old as the beginning of the answer: what came since is kept.
  transcript.load([turn(1, { role: "user", text: "hi", state: "done" }), turn(2)]);
  assert.equal(transcript.running.text, "abcde");
  transcript.load([turn(2, { text: "abcdef", seq: 5, state: "done" })]);
  assert.deepEqual([transcript.running, transcript.turns[0].text], [null, "abcdef"]);
  assert.ok(!transcript.apply(piece(6, "late")));
});

test("a reply that is older than the pieces that came meanwhile is not taken", () => {
  const transcript = new Transcript();
  transcript.load([turn(2, { text: "abc", seq: 3 })]);
  transcript.replace(turn(2, { text: "ab", seq: 2 }));
  assert.equal(transcript.running.text, "abc");
});

test("a message that is none changes nothing", () => {
  const transcript = new Transcript();
  transcript.load([turn(2, { text: "kept" })]);
  const strange = [
    null,
    5,
    "x",
    [],
    {},
    { type: "piece" },
    piece("1", "a"),
    piece(1, 5),
    piece(1, "a", { turn: 99 }),
    { type: "reply" },
  ];
  for (const one of strange) assert.ok(!transcript.apply(one));
  for (const one of [null, 5, "x", {}, undefined]) transcript.load(one);
  for (const one of strange) transcript.replace(one);
  assert.equal(transcript.running.text, "kept");
  transcript.load([
    null,
    5,
    {},
    { id: "1", role: "user", text: "a" },
    { id: 1, role: "system", text: "a" },
    turn(3),
  ]);
  assert.deepEqual(
    transcript.turns.map(({ id }) => id),
    [3],
  );
});

test("of a turn only what has its type is believed", () => {
  const strange = {
    ...turn(1),
    state: "<b>",
    seq: "x",
    tokens: "9",
    seconds: Number.NaN,
    trace_id: "<img>",
    error: { what: 5 },
    model: {},
  };
  const made = asTurn(strange);
  assert.deepEqual(
    [made.state, made.seq, made.tokens, made.seconds, made.trace_id, made.error, made.model],
    ["done", 0, null, null, null, null, null],
  );
});

test("the transcript as Markdown keeps what was written", () => {
  const transcript = new Transcript();
  transcript.load([
    turn(1, { role: "user", text: "a *b*", state: "done" }),
    turn(2, { text: "# c", state: "done" }),
  ]);
  assert.equal(transcript.markdown(), "**You**\n\na *b*\n\n**Model**\n\n# c\n");
});

test("cells go below the one that shows the chat, where the host has a notebook", () => {
  const put = [];
  const sharedModel = {
    cells: [{ id: "a" }, { id: "b" }, { id: "c" }],
    insertCells: (at, cells) => put.push([at, cells]),
  };
  const manager = { context: { model: { sharedModel } } };
  const cells = [{ kind: "markdown", source: "x" }];
  assert.ok(insertCells(manager, "b", cells));
  assert.deepEqual(put, [[2, [{ cell_type: "markdown", source: "x", metadata: {} }]]]);
  for (const other of [null, undefined, {}, { context: {} }, { context: { model: { sharedModel: {} } } }])
    assert.ok(!insertCells(other, "b", cells));
  assert.ok(!insertCells(manager, "gone", cells));
});
