/** HTML of a model's Markdown as elements: only these, with only these attributes, whatever came. */

import createPurify from "dompurify";
import { h } from "../dom.js";
import { highlight } from "./highlight.js";
import { isWeb } from "./markdown.js";

const purify = createPurify(window);
const ALLOWED = {
  ALLOWED_TAGS:
    "p br hr h1 h2 h3 h4 h5 h6 strong em del code pre blockquote ul ol li table thead tbody tr th td a span".split(
      " ",
    ),
  ALLOWED_ATTR: ["href", "start", "align", "data-lang", "data-raw"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: /** @type {true} */ (true),
};

/**
 * @param {string} html
 * @param {(text: string) => void} onCopy Somebody wants the code of a block.
 * @returns {DocumentFragment}
 */
export function elements(html, onCopy) {
  const made = purify.sanitize(html, ALLOWED);
  for (const link of made.querySelectorAll("a")) {
    if (!isWeb(link.getAttribute("href") ?? "")) link.removeAttribute("href");
    link.rel = "noopener noreferrer nofollow";
    link.target = "_blank";
    link.referrerPolicy = "no-referrer";
  }
  for (const code of made.querySelectorAll("pre > code")) {
    const text = code.textContent ?? "";
    const lang = code.getAttribute("data-lang") ?? "";
    code.replaceChildren(
      ...highlight(text, lang).map(([kind, piece]) =>
        kind ? h("span", { class: `ll-${kind}` }, piece) : piece,
      ),
    );
    const copy = h("button", { type: "button", class: "ll-button" }, "Copy code");
    copy.addEventListener("click", () => onCopy(text));
    const pre = code.parentElement;
    pre?.setAttribute("tabindex", "0"); // it scrolls sideways
    const bar = h("div", { class: "ll-code-bar" }, h("span", { class: "ll-note" }, lang || "code"), copy);
    const frame = h("div", { class: "ll-code" }, bar);
    pre?.replaceWith(frame);
    if (pre) frame.append(pre);
  }
  for (const table of made.querySelectorAll("table")) {
    const frame = h("div", { class: "ll-scroll", tabindex: 0 });
    table.replaceWith(frame);
    frame.append(table);
  }
  return made;
}
