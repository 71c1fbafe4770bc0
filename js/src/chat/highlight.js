/** The parts of a piece of code that are worth a colour: comments, strings, numbers, keywords. No grammar, any language. */

const KEYWORDS = new Set(
  `and as async await begin bool break case catch class const continue def default del do double elif else elseif end
  enum except export extends extern false final finally float fn for from func function global go if impl implements
  import in instanceof int interface is lambda let local long match mod module mut namespace new nil none not null or
  package pass private protected pub public raise return select self static string struct super switch then this throw
  trait true try type typedef typeof union unsigned use using var void where while with yield`.split(/\s+/),
);
/** How a comment begins that ends with its line; elsewhere two slashes do. @type {Map<string, string>} */
const COMMENTS = new Map([
  ..."py python python3 ipython sh bash shell zsh console r rb ruby perl yaml yml toml ini make makefile dockerfile julia nix"
    .split(" ")
    .map((lang) => /** @type {const} */ ([lang, "#"])),
  ..."sql lua haskell hs ada".split(" ").map((lang) => /** @type {const} */ ([lang, "--"])),
]);
const STRING =
  /"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`(?:\\.|[^`\\])*`?/;
const REST = /\b\d[\w.]*|[A-Za-z_]\w*/;
const MAX_CHARACTERS = 30_000;

/** @typedef {"comment" | "string" | "number" | "keyword" | ""} Kind */

/**
 * @param {string} code
 * @param {string} lang
 * @returns {[Kind, string][]} Pieces that together are the code.
 */
export function highlight(code, lang) {
  if (code.length > MAX_CHARACTERS || /^(te?xt|plain|output|diff|md|markdown)?$/i.test(lang))
    return [["", code]];
  const mark = COMMENTS.get(lang.toLowerCase()) ?? "//";
  const block = mark === "//" ? "|/\\*[\\s\\S]*?(?:\\*/|$)" : "";
  const parts = new RegExp(`(${mark}[^\\n]*${block})|(${STRING.source})|${REST.source}`, "g");
  /** @type {[Kind, string][]} */
  const found = [];
  let at = 0;
  for (const match of code.matchAll(parts)) {
    const [word, comment, string] = match;
    /** @type {Kind} */
    const kind = comment
      ? "comment"
      : string
        ? "string"
        : /^\d/.test(word)
          ? "number"
          : KEYWORDS.has(word.toLowerCase())
            ? "keyword"
            : "";
    if (kind === "") continue;
    if (match.index > at) found.push(["", code.slice(at, match.index)]);
    found.push([kind, word]);
    at = match.index + word.length;
  }
  if (at < code.length) found.push(["", code.slice(at)]);
  return found;
}
