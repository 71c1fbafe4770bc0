/**
 * Boxes and lines in a plane that is moved and zoomed. Boxes are buttons: keys and screen readers reach them, the host's
 * fonts and forced colours apply, and long names end in an ellipsis.
 */

import { consume, h, keyed, setAttribute, setText } from "./dom.js";
import { count, duration, plain } from "./format.js";
import { curve, described, fitted, held, home, lookOf, neighbour, zoomed } from "./picture.js";
import { SHAPES } from "./theme.js";

/** @import { GraphNode, Picture, Place } from "./picture.js" */
/** @import { Theme } from "./theme.js" */

const SVG = "http://www.w3.org/2000/svg";
const STEP = 1.25;
/** A pointer that moves less has clicked. */
const STILL_PX = 4;
/** @type {Record<string, readonly [number, number]>} */
const MOVES = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

/** @type {Picture} */
const NOTHING = {
  kind: "",
  trace_id: null,
  spans: 0,
  nodes: [],
  edges: [],
  width: 0,
  height: 0,
  left_out: [],
};

export class Diagram {
  #lines = document.createElementNS(SVG, "svg");
  #boxes = h("div");
  #plane = h("div", { class: "ll-plane" }, this.#lines, this.#boxes);
  el = h(
    "div",
    {
      class: "ll-diagram",
      role: "group",
      tabindex: 0,
      "aria-label": "Graph. Arrow keys move it, plus and minus zoom, 0 shows all of it.",
    },
    this.#plane,
  );
  /** @type {Map<string, HTMLButtonElement>} */
  #buttons = new Map();
  #picture = NOTHING;
  /** @type {Place} */
  #place = { x: 0, y: 0, scale: 1 };
  /** Whether the reader has chosen what to see. */
  #moved = false;
  #theme = -1;
  /** The node that Tab reaches. */
  #entry = "";
  #onOpen;
  #onLook;

  /**
   * @param {AbortSignal} signal
   * @param {(node: GraphNode) => void} onOpen
   * @param {(index: number | null) => void} onLook a node is pointed at or has the focus
   */
  constructor(signal, onOpen, onLook) {
    this.#onOpen = onOpen;
    this.#onLook = onLook;
    setAttribute(this.#lines, "aria-hidden", "true");
    const options = { signal };
    this.el.addEventListener("keydown", (event) => this.#onKey(event), options);
    this.el.addEventListener("pointerdown", (event) => this.#onPointer(event), options);
    this.el.addEventListener("wheel", (event) => this.#onWheel(event), { signal, passive: false });
    const found = (/** @type {Event} */ { target }) =>
      target instanceof Element ? this.#indexOf(target.closest(".ll-node")) : null;
    for (const name of ["pointerover", "focusin"])
      this.el.addEventListener(name, (event) => this.#near(found(event)), options);
    for (const name of ["pointerleave", "focusout"])
      this.el.addEventListener(name, () => this.#near(this.#indexOf(document.activeElement)), options);
    this.el.addEventListener("focusin", (event) => this.#onFocus(found(event)), options);
    this.#boxes.addEventListener(
      "click",
      (event) => {
        const node = this.#picture.nodes[found(event) ?? -1];
        if (node) this.#onOpen(node);
      },
      options,
    );
  }

  /**
   * @param {Picture} picture
   * @param {Theme} theme
   * @param {string | null} selected id of a span
   */
  render(picture, theme, selected) {
    const fresh = picture !== this.#picture;
    const other = picture.kind !== this.#picture.kind || picture.trace_id !== this.#picture.trace_id;
    this.#picture = picture;
    if (other) this.#moved = false;
    if (fresh || theme.version !== this.#theme) this.#draw(theme);
    for (const node of picture.nodes)
      setAttribute(
        this.#buttons.get(node.id) ?? this.el,
        "aria-current",
        node.span_id === selected && "true",
      );
    if (!this.#moved) this.#put(home(picture, this.#size()), false);
    else if (fresh) this.#put(this.#place);
  }

  /** @param {number} steps larger when positive */
  zoom(steps) {
    const { width, height } = this.#size();
    this.#put(zoomed(this.#place, STEP ** steps, width / 2, height / 2));
  }

  fit() {
    this.#put(fitted(this.#picture, this.#size()));
  }

  /** @param {Theme} theme */
  #draw(theme) {
    this.#theme = theme.version;
    const { nodes, edges, width, height } = this.#picture;
    setAttribute(this.#lines, "width", width);
    setAttribute(this.#lines, "height", height);
    this.#lines.replaceChildren(
      ...edges.map(([from, to, , spans]) => {
        const [a, b] = [nodes[from], nodes[to]];
        const line = document.createElementNS(SVG, "path");
        if (a && b) setAttribute(line, "d", curve(a, b));
        setAttribute(line, "stroke-width", Math.min(3, 1 + Math.log10(spans) / 2));
        return line;
      }),
    );
    if (!nodes.some(({ id }) => id === this.#entry)) this.#entry = nodes[0]?.id ?? "";
    keyed(
      this.#boxes,
      this.#buttons,
      nodes,
      ({ id }) => id,
      () => made(),
      (button, node) => {
        const look = lookOf(node);
        const [mark, words] = button.children;
        const [label, note] = words?.children ?? [];
        const shape = mark?.firstElementChild;
        if (!shape || !label || !note) return;
        button.style.transform = `translate(${node.x}px, ${node.y}px)`;
        button.style.width = `${node.width}px`;
        button.style.height = `${node.height}px`;
        setAttribute(shape, "d", SHAPES[look.shape] ?? "");
        setAttribute(shape, look.shape === "cross" ? "stroke" : "fill", theme.color(look));
        setAttribute(shape, look.shape === "cross" ? "fill" : "stroke", "none");
        setText(label, `${node.errors > 0 ? "\u2715 " : ""}${plain(node.label)}`);
        setText(note, noteOf(node));
        setAttribute(button, "aria-label", described(node));
        setAttribute(button, "title", plain(node.label));
        setAttribute(button, "data-kind", node.kind);
        setAttribute(button, "data-failed", node.errors > 0);
        setAttribute(button, "tabindex", node.id === this.#entry ? 0 : -1);
      },
    );
  }

  #size() {
    return { width: this.el.clientWidth, height: this.el.clientHeight };
  }

  /**
   * @param {Place} place
   * @param {boolean} [chosen]
   */
  #put(place, chosen = true) {
    this.#moved ||= chosen;
    this.#place = held(place, this.#picture, this.#size());
    const { x, y, scale } = this.#place;
    this.#plane.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
  }

  /** @param {Element | null} button */
  #indexOf(button) {
    const at = this.#picture.nodes.findIndex(({ id }) => this.#buttons.get(id) === button);
    return button === null || at < 0 ? null : at;
  }

  /** @param {number | null} index */
  #near(index) {
    const { nodes, edges } = this.#picture;
    const near = new Set();
    edges.forEach(([from, to], i) => {
      const touches = index !== null && (from === index || to === index);
      if (touches) near.add(from).add(to);
      const line = this.#lines.children[i];
      if (line) setAttribute(line, "data-near", touches);
    });
    nodes.forEach(
      ({ id }, i) => void setAttribute(this.#buttons.get(id) ?? this.el, "data-near", near.has(i)),
    );
    this.#onLook(index);
  }

  /** @param {number | null} index */
  #onFocus(index) {
    const node = this.#picture.nodes[index ?? -1];
    if (!node) return;
    for (const [id, button] of this.#buttons) setAttribute(button, "tabindex", id === node.id ? 0 : -1);
    this.#entry = node.id;
    // The browser would scroll the box into view, behind the back of what is drawn.
    this.el.scrollTo(0, 0);
    if (!this.#buttons.get(node.id)?.matches(":focus-visible")) return;
    const { x, y, scale } = this.#place;
    const { width, height } = this.#size();
    const into = (/** @type {number} */ at, /** @type {number} */ size, /** @type {number} */ room) =>
      at < 8 ? 8 - at : Math.min(0, room - 8 - at - size);
    const dx = into(x + node.x * scale, node.width * scale, width);
    const dy = into(y + node.y * scale, node.height * scale, height);
    if (dx || dy) this.#put({ scale, x: x + dx, y: y + dy });
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const index = this.#indexOf(document.activeElement);
    const here = this.#picture.nodes[index ?? -1];
    const move = MOVES[event.key];
    if (move && here) {
      consume(event);
      const next = neighbour(this.#picture.nodes, here, event.key);
      if (next) this.#buttons.get(next.id)?.focus();
    } else if (move) {
      consume(event);
      const far = event.shiftKey ? 4 : 1;
      const { x, y, scale } = this.#place;
      this.#put({ scale, x: x + move[0] * far, y: y + move[1] * far });
    } else if (event.key === "+" || event.key === "=" || event.key === "-") {
      consume(event);
      this.zoom(event.key === "-" ? -1 : 1);
    } else if (event.key === "0") {
      consume(event);
      this.fit();
    }
  }

  /** @param {PointerEvent} down */
  #onPointer(down) {
    if (down.button !== 0) return;
    const start = this.#place;
    const over = new AbortController();
    let dragged = false;
    const move = (/** @type {PointerEvent} */ { clientX, clientY }) => {
      const [dx, dy] = [clientX - down.clientX, clientY - down.clientY];
      if (!dragged && Math.hypot(dx, dy) < STILL_PX) return;
      if (!dragged) this.el.setPointerCapture(down.pointerId);
      dragged = true;
      this.#put({ scale: start.scale, x: start.x + dx, y: start.y + dy });
    };
    const end = () => over.abort();
    this.el.addEventListener("pointermove", move, over);
    this.el.addEventListener("pointerup", end, over);
    this.el.addEventListener("pointercancel", end, over);
    // Released over a box outside of a drag is a click; captured pointers click on the element that captured them.
    this.el.addEventListener("pointerleave", () => !dragged && end(), over);
  }

  /** @param {WheelEvent} event */
  #onWheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    consume(event);
    const { left, top } = this.el.getBoundingClientRect();
    const factor = Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 150);
    this.#put(zoomed(this.#place, factor, event.clientX - left, event.clientY - top));
  }
}

/** An empty box; `render` fills it. */
function made() {
  const mark = document.createElementNS(SVG, "svg");
  setAttribute(mark, "viewBox", "-8 -8 16 16");
  setAttribute(mark, "aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  setAttribute(shape, "fill-rule", "evenodd");
  mark.append(shape);
  const words = h("span", {}, h("span"), h("span", { class: "ll-note" }));
  return h("button", { type: "button", class: "ll-node" }, mark, words);
}

/** @param {GraphNode} node */
function noteOf({ spans, p50_s, tokens }) {
  if (spans > 1) return `\u00d7 ${count(spans)} \u00b7 p50 ${duration(p50_s)}`;
  return [duration(p50_s), tokens !== null && `${count(tokens)} tok`].filter(Boolean).join(" \u00b7 ");
}
