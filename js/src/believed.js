/**
 * What is believed of what Python sends: values of their own type and within bounds, as new objects. The rest is left
 * out and counted, so that no view meets a shape that it does not know and the page can say that something is missing.
 */

/** @import { Device, OwnerEntry, Series, Server, Snapshot, Span, Totals } from "./types.js" */

/** @typedef {{ count: number }} Lost What was left out. */
/** @typedef {{ t_ms: number[], values: (number | null)[][] }} Points */

/** The year 2100: what is later is no time, and axes end somewhere. */
const LATEST_MS = 4_102_444_800_000;
/** No reading is from so long after now. */
const AHEAD_MS = 3_600_000;
/** Python cuts names at 200 characters. */
const MOST_TEXT = 2000;
export const MOST = {
  lines: 20_000,
  series: 2000,
  devices: 64,
  owners: 100,
  spans: 20_000,
  nodes: 4000,
  edges: 20_000,
  attributes: 5000,
};
const FIGURES = /** @type {const} */ ([
  "input_tokens",
  "output_tokens",
  "cached_tokens",
  "ttft_s",
  "decode_tokens_per_s",
  "prefill_tokens_per_s",
  "energy_j",
  "peak_bytes",
]);
const SAID = /** @type {const} */ (["kind", "status", "error_type", "model", "server", "cell_id", "scope"]);
const OF_SERVER = /** @type {const} */ ([
  "slots",
  "slots_busy",
  "queued",
  "ctx_per_slot",
  "kv_tokens",
  "kv_capacity",
  "decode_tokens_per_s",
  "prefill_tokens_per_s",
  "ttft_s",
  "input_tokens_total",
  "output_tokens_total",
  "fraction",
]);

/** The value of a table's own entry; names of other people may be names that every object has. @template T @param {Record<string, T>} table @param {string} name */
export const own = (table, name) => (Object.hasOwn(table, name) ? table[name] : undefined);

/** @param {unknown} value @returns {Record<string, any> | null} */
export const record = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? value : null;
/** @param {unknown} value */
export const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
/** @param {unknown} value @returns {number | null} Unix ms */
export const time = (value) => (typeof value === "number" && value >= 0 && value <= LATEST_MS ? value : null);
/** @param {unknown} value */
export const text = (value) => (typeof value === "string" ? value.slice(0, MOST_TEXT) : null);

/**
 * @template T
 * @param {unknown} values
 * @param {(value: any) => T | null} one `null`: it is none
 * @param {number} most
 * @param {Lost} lost
 * @returns {T[]}
 */
export function list(values, one, most, lost) {
  if (values == null) return [];
  if (!Array.isArray(values)) {
    lost.count += 1;
    return [];
  }
  const made = Array.from(values.slice(0, most), one).filter((value) => value !== null);
  lost.count += values.length - made.length;
  return made;
}

/** @template {string} K @param {Record<string, any>} given @param {readonly K[]} names @param {(value: unknown) => any} one */
export const each = (given, names, one) =>
  /** @type {Record<K, any>} */ (Object.fromEntries(names.map((name) => [name, one(given[name])])));

/** @param {unknown} value @returns {Span | null} A span; one that ends before it begins has no length. */
export function asSpan(value) {
  const given = record(value);
  const [trace_id, span_id, name] = [
    text(given?.["trace_id"]),
    text(given?.["span_id"]),
    text(given?.["name"]),
  ];
  const [start_ms, end_ms] = [time(given?.["start_ms"]), time(given?.["end_ms"])];
  if (!given || !trace_id || !span_id || name === null || start_ms === null || end_ms === null) return null;
  return {
    trace_id,
    span_id,
    name,
    start_ms,
    parent_id: text(given["parent_id"]),
    end_ms: Math.max(start_ms, end_ms),
    ...each(given, SAID, text),
    ...each(given, FIGURES, number),
  };
}

/** @param {unknown} value @returns {Server | null} */
export function asServer(value) {
  const given = record(value);
  const [name, state] = [text(given?.["name"]), text(given?.["state"])];
  if (!given || name === null || state === null) return null;
  const owned = typeof given["owned"] === "boolean" ? { owned: given["owned"] } : {};
  return {
    name,
    state,
    since_ms: time(given["since_ms"]),
    ...owned,
    ...each(given, ["model", "engine", "url", "stage", "reason", "remedy"], text),
    ...each(given, OF_SERVER, number),
  };
}

/** @param {unknown} value @returns {Totals | null} */
export function asTotals(value) {
  const given = record(value);
  return (
    given && {
      ...each(given, ["spans", "traces", "calls", "errors"], (v) => number(v) ?? 0),
      ...each(given, ["input_tokens", "output_tokens"], number),
    }
  );
}

/** @param {unknown} values @param {Lost} lost @returns {Device[]} */
export const asDevices = (values, lost) =>
  list(
    values,
    (one) => {
      const given = record(one);
      const [id, name] = [text(given?.["id"]), text(given?.["name"])];
      if (!given || id === null || name === null) return null;
      const plan = record(given["plan"]);
      const planned = Object.entries(plan ?? {}).filter(([, bytes]) => number(bytes) !== null);
      return {
        id,
        name,
        ...each(given, ["total_bytes", "used_bytes", "util", "power_w"], number),
        since_ms: time(given["since_ms"]),
        owners: list(given["owners"], asOwner, MOST.owners, lost),
        plan: plan && Object.fromEntries(planned),
      };
    },
    MOST.devices,
    lost,
  );

/** @param {unknown} value @returns {OwnerEntry | null} */
function asOwner(value) {
  const given = record(value);
  const owner = text(given?.["owner"]);
  if (!given || owner === null) return null;
  const source = text(given["source"]);
  return {
    owner,
    ...each(given, ["bytes", "filled_bytes", "pid"], number),
    process: text(given["process"]),
    ...(source !== null && { source }),
  };
}

/**
 * A series that is none keeps its place, without a name: columns are found by it.
 *
 * @param {readonly unknown[]} values
 * @param {Lost} lost
 * @returns {Series[]}
 */
export function asSeries(values, lost) {
  const made = Array.from(values.slice(0, MOST.series), (value) => {
    const given = record(value);
    const [id, group, label] = [text(given?.["id"]), text(given?.["group"]), text(given?.["label"])];
    if (!given || id === null || group === null) return { id: "", group: "" };
    return {
      id,
      group,
      ...(label !== null && { label }),
      ...each(given, ["device", "owner", "server"], text),
    };
  });
  lost.count += values.length - made.filter(({ group }) => group !== "").length;
  return made;
}

/**
 * Rows in order of time, each column as long as they are.
 *
 * @param {unknown} value
 * @param {number} columns
 * @param {Lost} lost
 * @param {number} [untilMs]
 * @returns {Points}
 */
export function asPoints(value, columns, lost, untilMs = LATEST_MS) {
  const given = record(value) ?? {};
  const times = Array.isArray(given["t_ms"]) ? given["t_ms"] : [];
  let last = Number.NEGATIVE_INFINITY;
  const rows = times.flatMap((t, row) => {
    if (time(t) === null || t < last || t > untilMs) return [];
    last = t;
    return [row];
  });
  lost.count += times.length - rows.length;
  const found = Array.from({ length: columns }, (_, i) => given["values"]?.[i] ?? []);
  return {
    t_ms: rows.map((row) => times[row]),
    values: found.map((column) => rows.map((row) => number(column[row]))),
  };
}

/**
 * @param {unknown} value
 * @param {Lost} [lost]
 * @returns {Snapshot | null}
 */
export function asSnapshot(value, lost = { count: 0 }) {
  const given = record(value);
  const now_ms = time(given?.["now_ms"]);
  if (given?.["version"] !== 1 || now_ms === null || !Array.isArray(given["series"])) return null;
  const series = asSeries(given["series"], lost);
  const server = asServer(given["server"]);
  if (given["server"] != null && !server) lost.count += 1;
  const window_s = number(given["window_s"]) ?? 0;
  return {
    version: 1,
    now_ms,
    server,
    series,
    totals: asTotals(given["totals"]),
    since_ms: time(given["since_ms"]),
    window_s: window_s > 0 && window_s <= 7 * 86_400 ? window_s : 0,
    devices: asDevices(given["devices"], lost),
    points: asPoints(given["points"], series.length, lost, now_ms + AHEAD_MS),
    spans: list(given["spans"], asSpan, MOST.spans, lost),
    titles: record(given["titles"]) ?? {},
  };
}
