/**
 * What `%llama doctor --host` asks of a page (llamatelemetry_jupyter/magics/hostcheck.py): it shows the report that Python
 * writes, and tells what only a page can see.
 */

import "./base.css";
import "./hostcheck.css";
import { copy } from "./chat/clipboard.js";
import { h, hideStatic, setText } from "./dom.js";
import { Model } from "./model.js";
import { groundIsDark, Theme } from "./theme.js";

/** @import { AnyModel } from "./model.js" */

/** Every value of a byte, the same in Python. */
const BYTES = Uint8Array.from({ length: 256 }, (_, i) => i);
/** An output that is updated in place is there by then. */
const LOOKS = 20;
const LOOK_MS = 150;
const NARROW_PX = 120;

/** How the page says its theme, as far as it does: the ways that theme.js knows. */
function marks() {
  const { body, documentElement: html } = document;
  const named = [
    ["data-jp-theme-light", body.dataset["jpThemeLight"]],
    ["data-vscode-theme-kind", body.dataset["vscodeThemeKind"]],
    ["html theme", html.getAttribute("theme")],
    ["html data-theme", html.dataset["theme"]],
    ["body data-theme", body.dataset["theme"]],
  ];
  const found = named.flatMap(([name, value]) => (value ? [`${name}=${value}`] : []));
  return found.join(", ") || "only by its colour";
}

/** JupyterLab and Notebook 7 write into their page which they are. */
function application() {
  try {
    const config = JSON.parse(document.getElementById("jupyter-config-data")?.textContent ?? "{}");
    return `${config.appName ?? ""} ${config.appVersion ?? ""}`.trim();
  } catch {
    return ""; // another host's element of that name
  }
}

/**
 * @param {AnyModel} model
 * @param {HTMLElement} el
 * @param {AbortSignal} signal
 */
function show(model, el, signal) {
  const own = new Model(model, signal);
  const report = h("pre", { class: "ll-check", "data-field": "report", tabindex: 0 });
  const done = h("span", { class: "ll-note", role: "status" });
  const button = h("button", { type: "button", class: "ll-button", "data-action": "copy" }, "Copy");
  const root = h(
    "div",
    {
      class: "llamatelemetry ll-ui",
      role: "region",
      "aria-label": "llamatelemetry host check",
      "data-lm-suppress-shortcuts": "true",
    },
    report,
    button,
    " ",
    done,
  );
  el.append(root);
  const theme = new Theme(root);
  theme.follow(() => {}, signal);
  const update = () => setText(report, String(own.get("report") ?? ""));
  own.onChange("report", update);
  update();
  button.addEventListener(
    "click",
    async () =>
      setText(done, (await copy(report.textContent, root)) ? "copied" : "select the text and copy it"),
    { signal },
  );

  /** @param {Record<string, unknown>} content @param {Uint8Array[]} [buffers] */
  const tell = (content, buffers = []) => model.send(content, undefined, buffers);
  const begin = () => {
    if (signal.aborted) return;
    if (!root.isConnected || root.clientWidth < NARROW_PX) {
      setTimeout(begin, LOOK_MS); // rendered, not yet on the page
      return;
    }
    theme.read();
    const about = {
      op: "page",
      width_px: root.clientWidth,
      theme: theme.dark ? "dark" : "light",
      marks: marks(),
      agrees: groundIsDark(root) === theme.dark,
      application: application(),
      agent: navigator.userAgent,
    };
    tell(about, [BYTES]);
  };
  own.onMessage((content, buffers) => {
    if (/** @type {any} */ (content)?.type !== "bytes") return;
    const came = buffers[0];
    const got = came ? new Uint8Array(came.buffer, came.byteOffset, came.byteLength) : new Uint8Array();
    const equal = got.length === BYTES.length && got.every((byte, i) => byte === BYTES[i]);
    tell({ op: "heard", equal });
    look(LOOKS);
  });
  /** @param {number} left */
  const look = (left) => {
    if (signal.aborted) return;
    const twin = document.querySelector(`[data-llamatelemetry-static="${own.staticId}"]`);
    const updated = twin?.querySelector("[data-updated]") !== null && twin !== null;
    if (!updated && left > 0) setTimeout(() => look(left - 1), LOOK_MS);
    else tell({ op: "twin", there: twin !== null, hidden: twin?.getClientRects().length === 0, updated });
  };
  const hiding = hideStatic(own.staticId);
  signal.addEventListener(
    "abort",
    () => {
      hiding?.remove();
      root.remove();
    },
    { once: true },
  );
  begin();
}

export default {
  /** @param {{ model: AnyModel, el: HTMLElement }} context */
  render({ model, el }) {
    const stop = new AbortController();
    show(model, el, stop.signal);
    return () => stop.abort();
  },
};
