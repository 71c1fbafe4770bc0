/** What is believed of the answers to what the page asks (llamatelemetry_jupyter/operations.py), by operation. */

import {
  asPoints,
  asSeries,
  asSnapshot,
  asSpan,
  each,
  list,
  MOST,
  number,
  record,
  text,
  time,
} from "./believed.js";
import { decodeLines } from "./lines.js";

/** @import { Lost } from "./believed.js" */
/** @import { Edge, GraphNode, Picture } from "./picture.js" */
/** @import { WholeSpan } from "./types.js" */

/** Python cuts values at 20 kB. */
const MOST_VALUE = 40_000;
const MOST_PX = 1e6;

/** @param {unknown} value @returns {number | null} px */
const length = (value) => (Math.abs(number(value) ?? MOST_PX) < MOST_PX ? number(value) : null);

/**
 * Of a span what only a whole trace tells: its attributes, the times between its tokens, the command.
 *
 * @param {unknown} value
 * @returns {Partial<WholeSpan> | null}
 */
function asDetails(value) {
  const given = record(value);
  if (!given) return null;
  const attributes = record(given["attributes"]);
  const entries = Object.entries(attributes ?? {}).slice(0, MOST.attributes);
  const curl = record(given["curl"]);
  const prompt = text(curl?.["prompt"]) ?? "";
  const command = curl?.["command"];
  const figures = Object.entries(each(given, ["left_out", "gaps_left_out"], number)).filter(
    ([, n]) => n !== null,
  );
  return {
    ...Object.fromEntries(figures),
    ...(attributes && {
      attributes: Object.fromEntries(
        entries.map(([name, one]) => [name, typeof one === "string" ? one.slice(0, MOST_VALUE) : one]),
      ),
    }),
    ...(record(given["cut"]) && {
      cut: Object.fromEntries(Object.entries(given["cut"]).filter(([, n]) => number(n) !== null)),
    }),
    ...(Array.isArray(given["gaps_s"]) && {
      gaps_s: given["gaps_s"].map((gap) => Math.max(0, number(gap) ?? 0)),
    }),
    ...(typeof command === "string" &&
      ["whole", "part", "none"].includes(prompt) && {
        curl: { command, prompt: /** @type {"none"} */ (prompt) },
      }),
  };
}

/**
 * The answer of the operation "trace"; its times are nanoseconds as text.
 *
 * @param {unknown} value
 * @param {Lost} lost
 */
function asTrace(value, lost) {
  const given = record(value);
  if (!given || !Array.isArray(given["spans"])) return null;
  const series = asSeries(Array.isArray(given["series"]) ? given["series"] : [], lost);
  const spans = list(
    given["spans"],
    (one) => {
      const { start_ns, end_ns } = record(one) ?? {};
      const [start_ms, end_ms] = [Number(start_ns) / 1e6, Number(end_ns) / 1e6];
      const span = asSpan({ ...record(one), trace_id: "-", start_ms, end_ms });
      return span && /** @type {WholeSpan} */ ({ ...span, ...asDetails(one) });
    },
    MOST.spans,
    lost,
  );
  return { spans, series, points: asPoints(given["points"], series.length, lost) };
}

/**
 * The answer of the operation "graph".
 *
 * @param {unknown} value
 * @param {Lost} lost
 * @returns {Picture | null}
 */
function asPicture(value, lost) {
  const given = record(value);
  const size = given && each(given, ["width", "height"], length);
  if (!given || !Array.isArray(given["nodes"]) || size?.width == null || size.height == null) return null;
  // A node that is none keeps its place, too: edges are between places.
  const places = Array.from(given["nodes"].slice(0, MOST.nodes), asNode);
  const nodes = places.filter((node) => node !== null);
  lost.count += given["nodes"].length - nodes.length;
  let next = 0;
  const at = places.map((node) => (node ? next++ : -1));
  const edges = list(
    given["edges"],
    (edge) => {
      const [from, to, kind, spans, p50, p95] = Array.isArray(edge) ? edge : [];
      const ends = [at[from] ?? -1, at[to] ?? -1];
      if (ends.includes(-1) || !((number(spans) ?? 0) >= 1)) return null;
      return /** @type {Edge} */ (
        /** @type {unknown} */ ([...ends, text(kind) ?? "", spans, number(p50) ?? 0, number(p95) ?? 0])
      );
    },
    MOST.edges,
    lost,
  );
  const words = list(given["left_out"], text, 100, lost);
  return {
    kind: text(given["kind"]) ?? "",
    trace_id: text(given["trace_id"]),
    spans: number(given["spans"]) ?? 0,
    nodes,
    edges,
    width: size.width,
    height: size.height,
    left_out: words,
  };
}

/** @param {unknown} value @returns {GraphNode | null} */
function asNode(value) {
  const given = record(value);
  if (!given) return null;
  const said = each(given, ["id", "kind", "label", "trace_id", "span_id"], text);
  const placed = each(given, ["x", "y", "width", "height"], length);
  const times = each(given, ["start_ms", "end_ms"], time);
  if ([said, placed, times].some((part) => Object.values(part).includes(null))) return null;
  const figures = each(given, ["spans", "p50_s", "p95_s", "tokens", "errors"], number);
  return { ...said, ...placed, ...times, ...figures, spans: figures.spans ?? 1, errors: figures.errors ?? 0 };
}

/** @param {unknown} value What would be sent to a hub. */
function asPlan(value) {
  const given = record(value);
  const [token, host, rows, columns] = [
    text(given?.["token"]),
    text(given?.["host"]),
    record(given?.["rows"]),
    record(given?.["columns"]),
  ];
  if (!given || token === null || host === null || !rows || !columns) return null;
  const lost = { count: 0 };
  const words = (/** @type {unknown} */ those) => list(those, text, 200, lost);
  return {
    token,
    host,
    left_out: words(given["left_out"]),
    rows: each(rows, Object.keys(rows), number),
    columns: each(columns, Object.keys(columns), words),
  };
}

/** By operation, what its answer is made of; `null`: it is none. @type {Record<string, (value: any, lost: Lost) => unknown>} */
export const ANSWERS = {
  trace: asTrace,
  span: asDetails,
  graph: asPicture,
  history: asSnapshot,
  otlp: (value) => (typeof value === "string" ? value : null),
  traces: decodeLines,
  "graph.prepare": asPlan,
  "graph.upload": (value) => record(value),
};
