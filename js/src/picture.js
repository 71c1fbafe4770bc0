/** A graph as Python sends it (llamatelemetry_jupyter/views/diagram.py), in words and in places; no page is needed here. */

import { own } from "./believed.js";
import { count, duration, plain } from "./format.js";
import { NODES, SPANS } from "./theme.js";

/** @import { SpanLook } from "./theme.js" */

/**
 * @typedef {{
 *   id: string, kind: string, label: string, x: number, y: number, width: number, height: number,
 *   trace_id: string, span_id: string, start_ms: number, end_ms: number,
 *   spans: number, p50_s: number | null, p95_s: number | null, tokens: number | null, errors: number,
 * }} GraphNode
 * @typedef {readonly [from: number, to: number, kind: string, spans: number, p50_s: number, p95_s: number]} Edge
 * @typedef {{
 *   kind: string, trace_id: string | null, spans: number, nodes: readonly GraphNode[], edges: readonly Edge[],
 *   width: number, height: number, left_out: readonly string[],
 * }} Picture
 * @typedef {{ x: number, y: number, scale: number }} Place Where the picture's corner is, and how large it is drawn.
 * @typedef {{ width: number, height: number }} Size
 */

const PAD = 12;
const SMALLEST = 0.12;
const LARGEST = 2.5;
/** Below this a label cannot be read: the first view shows the beginning instead of all. */
const READABLE = 0.62;

/** @param {GraphNode} node @returns {SpanLook} */
export function lookOf({ kind }) {
  return own(NODES, kind) ?? own(SPANS, kind) ?? /** @type {SpanLook} */ (SPANS["other"]);
}

/** @param {GraphNode} node @returns {(string | false)[]} What is known of a node, in words. */
export function facts({ spans, p50_s, p95_s, tokens, errors }) {
  return [
    spans > 1 && `${count(spans)} times`,
    p50_s !== null && (spans > 1 ? `p50 ${duration(p50_s)}` : duration(p50_s)),
    spans > 1 && p95_s !== null && `p95 ${duration(p95_s)}`,
    tokens !== null && `${count(tokens)} tokens`,
    errors > 0 && `${count(errors)} failed`,
  ];
}

/** @param {GraphNode} node */
export function described(node) {
  return [`${lookOf(node).label} ${plain(node.label)}`, ...facts(node).filter(Boolean)].join(", ");
}

/**
 * What leads away from a node: the most frequent first.
 *
 * @param {Picture} picture
 * @param {number} index
 */
export function leads({ nodes, edges }, index) {
  return edges
    .filter(([from]) => from === index)
    .sort((a, b) => b[3] - a[3])
    .map(([, to, , spans, p50, p95]) => {
      const times = spans > 1 ? ` ${count(spans)} times, p95 ${duration(p95)}` : ` ${duration(p50)}`;
      return `\u2192 ${plain(nodes[to]?.label)}${times}`;
    });
}

/**
 * An edge from the right of one box to the left of another.
 *
 * @param {GraphNode} from
 * @param {GraphNode} to
 */
export function curve(from, to) {
  const [x0, y0] = [from.x + from.width, from.y + from.height / 2];
  const [x1, y1] = [to.x, to.y + to.height / 2];
  const bend = Math.max(20, Math.abs(x1 - x0) / 2);
  return `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`;
}

/**
 * The whole picture.
 *
 * @param {Size} picture
 * @param {Size} view
 * @returns {Place}
 */
export function fitted(picture, view) {
  const wide = (view.width - 2 * PAD) / Math.max(1, picture.width);
  const high = (view.height - 2 * PAD) / Math.max(1, picture.height);
  const scale = Math.max(SMALLEST, Math.min(1, wide, high));
  return {
    scale,
    x: Math.max(PAD, (view.width - picture.width * scale) / 2),
    y: Math.max(PAD, (view.height - picture.height * scale) / 2),
  };
}

/**
 * The whole width, as long as labels can be read; the first row on top.
 *
 * @param {Size} picture
 * @param {Size} view
 * @returns {Place}
 */
export function home(picture, view) {
  const scale = Math.max(READABLE, Math.min(1, (view.width - 2 * PAD) / Math.max(1, picture.width)));
  return { scale, x: PAD, y: PAD };
}

/**
 * Moved so that some of the picture stays in view.
 *
 * @param {Place} place
 * @param {Size} picture
 * @param {Size} view
 * @returns {Place}
 */
export function held({ x, y, scale }, picture, view) {
  const clamp = (/** @type {number} */ at, /** @type {number} */ size, /** @type {number} */ room) =>
    Math.min(room - 48, Math.max(48 - size * scale, at));
  return { scale, x: clamp(x, picture.width, view.width), y: clamp(y, picture.height, view.height) };
}

/**
 * Zoomed about a point of the view, which stays where it is.
 *
 * @param {Place} place
 * @param {number} factor
 * @param {number} atX
 * @param {number} atY
 * @returns {Place}
 */
export function zoomed({ x, y, scale }, factor, atX, atY) {
  const next = Math.min(LARGEST, Math.max(SMALLEST, scale * factor));
  return { scale: next, x: atX - ((atX - x) * next) / scale, y: atY - ((atY - y) * next) / scale };
}

/**
 * The next node in a direction: near, and rather straight ahead than aside.
 *
 * @param {readonly GraphNode[]} nodes
 * @param {GraphNode} from
 * @param {string} key ArrowLeft, ArrowRight, ArrowUp, ArrowDown
 * @returns {GraphNode | undefined}
 */
export function neighbour(nodes, from, key) {
  const across = key === "ArrowLeft" || key === "ArrowRight";
  const sign = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
  let best;
  let least = Number.POSITIVE_INFINITY;
  for (const node of nodes) {
    const [dx, dy] = [node.x - from.x, node.y - from.y];
    const [ahead, aside] = across ? [dx * sign, Math.abs(dy)] : [dy * sign, Math.abs(dx)];
    const distance = ahead + aside * 3;
    if (ahead > 0 && distance < least) [best, least] = [node, distance];
  }
  return best;
}

/** @param {unknown} url @returns {string | null} `url` where it leads to a page of the web, else nothing. */
export function webUrl(url) {
  if (typeof url !== "string" || !URL.canParse(url)) return null;
  const { protocol, href } = new URL(url);
  return protocol === "https:" || protocol === "http:" ? href : null;
}
