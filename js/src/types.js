/**
 * Shapes of what Python sends; the schema's home is llamatelemetry_jupyter/views/model.py.
 *
 * @typedef {{
 *   owner: string, label?: string, bytes: number | null, filled_bytes?: number | null,
 *   pid?: number | null, process?: string | null, source?: string,
 * }} OwnerEntry
 *
 * @typedef {{
 *   id: string, name: string, total_bytes: number | null, used_bytes: number | null,
 *   util?: number | null, power_w?: number | null, owners: OwnerEntry[], since_ms?: number | null,
 *   plan?: Readonly<Record<string, number>> | null,
 * }} Device
 *
 * @typedef {{
 *   name: string, state: string, model: string | null, engine: string | null, url: string | null,
 *   slots: number | null, slots_busy: number | null, queued: number | null, ctx_per_slot: number | null,
 *   kv_tokens: number | null, kv_capacity: number | null, decode_tokens_per_s: number | null,
 *   prefill_tokens_per_s?: number | null, ttft_s: number | null,
 *   input_tokens_total: number | null, output_tokens_total: number | null, since_ms?: number | null, owned?: boolean,
 *   stage?: string | null, fraction?: number | null, reason?: string | null, remedy?: string | null,
 * }} Server
 *
 * @typedef {{
 *   spans: number, traces: number, calls: number, errors: number,
 *   input_tokens: number | null, output_tokens: number | null,
 * }} Totals
 *
 * @typedef {{
 *   id: string, group: string, label?: string, unit?: string,
 *   device?: string | null, owner?: string | null, server?: string | null,
 * }} Series
 *
 * @typedef {{
 *   trace_id: string, span_id: string, parent_id: string | null, name: string, kind?: string,
 *   start_ms: number, end_ms: number, status?: string, error_type?: string | null,
 *   model?: string | null, server?: string | null, cell_id?: string | null,
 *   input_tokens?: number | null, output_tokens?: number | null, cached_tokens?: number | null,
 *   ttft_s?: number | null, decode_tokens_per_s?: number | null, prefill_tokens_per_s?: number | null,
 *   energy_j?: number | null,
 *   peak_bytes?: number | null, depth?: number,
 * }} Span
 *
 * @typedef {Span & {
 *   start_ns?: string, end_ns?: string, scope?: string, attributes?: Record<string, unknown>, cut?: Record<string, number>,
 *   left_out?: number, gaps_s?: number[], gaps_left_out?: number, curl?: { command: string, prompt: "whole" | "part" | "none" },
 * }} WholeSpan With what the operations "trace" and "span" tell (views/traces.py).
 *
 * @typedef {{
 *   version: number, now_ms: number, window_s: number, since_ms?: number | null, server: Server | null, totals: Totals | null,
 *   devices: Device[], series: Series[],
 *   points: { t_ms: number[], values: (number | null)[][] }, spans: Span[], titles?: Record<string, unknown>,
 * }} Snapshot
 *
 * @typedef {{ type: "frame", seq: number, layout: number | null, rows: number, width: number, data: Float64Array }} Frame
 * @typedef {{
 *   type: "spans", seq: number, spans: Span[], totals: Totals | null,
 *   server: Server | null | undefined, devices: Device[] | null, sinceMs: number | null | undefined,
 * }} SpansUpdate
 * @typedef {{ type: "snapshot", seq: number, snapshot: Snapshot }} SnapshotUpdate
 * @typedef {Frame | SpansUpdate | SnapshotUpdate} Message
 */

export {};
