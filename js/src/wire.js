/**
 * Messages of llamatelemetry_jupyter/feed.py, decoded and checked. What does not fit is `null`, never an exception:
 * a lost or torn message costs a moment of the picture, not the picture.
 */

import {
  asDevices,
  asServer,
  asSnapshot,
  asSpan,
  asTotals,
  list,
  MOST,
  number,
  record,
  time,
} from "./believed.js";

/** @import { Lost } from "./believed.js" */
/** @import { Message, Series } from "./types.js" */

const MESSAGES = new Set(["frame", "spans", "snapshot"]);

/**
 * @param {unknown} content
 * @param {readonly (DataView | ArrayBuffer | ArrayBufferView)[]} [buffers]
 * @param {Lost} [lost] what does not fit is counted here
 * @returns {Message | null}
 */
export function decode(content, buffers = [], lost = { count: 0 }) {
  const given = record(content);
  const seq = number(given?.["seq"]);
  if (!given || !MESSAGES.has(given["type"])) return null;
  const message = seq === null ? null : read(given, seq, buffers, lost);
  if (!message) lost.count += 1;
  return message;
}

/**
 * @param {Record<string, any>} given
 * @param {number} seq
 * @param {readonly (DataView | ArrayBuffer | ArrayBufferView)[]} buffers
 * @param {Lost} lost
 * @returns {Message | null}
 */
function read(given, seq, buffers, lost) {
  if (given["type"] === "frame") return frame(given, seq, buffers[0]);
  if (given["type"] === "snapshot") {
    const snapshot = asSnapshot(given["snapshot"], lost);
    return snapshot && { type: "snapshot", seq, snapshot };
  }
  const server = asServer(given["server"]);
  if (given["server"] != null && !server) lost.count += 1;
  return {
    type: "spans",
    seq,
    spans: list(given["spans"], asSpan, MOST.spans, lost),
    totals: asTotals(given["totals"]),
    server: server ?? (given["server"] === null ? null : undefined),
    devices: Array.isArray(given["devices"]) ? asDevices(given["devices"], lost) : null,
    sinceMs: "since_ms" in given ? time(given["since_ms"]) : undefined,
  };
}

/**
 * @param {Record<string, unknown>} content
 * @param {number} seq
 * @param {DataView | ArrayBuffer | ArrayBufferView | undefined} buffer
 * @returns {Message | null}
 */
function frame(content, seq, buffer) {
  const rows = content["rows"];
  if (!isBuffer(buffer) || typeof rows !== "number" || !Number.isInteger(rows) || rows < 1) return null;
  const data = float64(buffer);
  const width = data.length / rows - 1;
  if (!Number.isInteger(width) || width < 0) return null;
  return { type: "frame", seq, layout: number(content["layout"]), rows, width, data };
}

/** @param {unknown} value @returns {value is ArrayBuffer | ArrayBufferView} */
const isBuffer = (value) => value instanceof ArrayBuffer || ArrayBuffer.isView(value);

/**
 * Little-endian doubles at any offset: a widget's buffer is a view that need not be aligned.
 *
 * @param {DataView | ArrayBuffer | ArrayBufferView} buffer
 */
export function float64(buffer) {
  const view = ArrayBuffer.isView(buffer)
    ? new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)
    : new DataView(buffer);
  const out = new Float64Array(Math.floor(view.byteLength / 8));
  for (let i = 0; i < out.length; i++) out[i] = view.getFloat64(i * 8, true);
  return out;
}

/**
 * CRC-32 of the series' ids joined by newlines (Python: `zlib.crc32`): which list a frame's columns belong to.
 *
 * @param {readonly Series[]} series
 */
export function layoutOf(series) {
  let crc = ~0;
  for (const byte of new TextEncoder().encode(series.map((s) => s.id).join("\n"))) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}
