/** The turns as Python told them (llamatelemetry_jupyter/conversation.py), with the pieces that came since. */

/**
 * @typedef {"user" | "assistant"} Role
 * @typedef {"done" | "running" | "stopped" | "failed"} TurnState
 * @typedef {{
 *   id: number, role: Role, text: string, state: TurnState, seq: number, reasoning: string, model: string | null,
 *   tokens: number | null, seconds: number | null, ttft_s: number | null, tokens_per_s: number | null,
 *   finish_reason: string | null, trace_id: string | null, dropped: number, progress: number | null,
 *   error: { what: string, hint: string } | null,
 * }} Turn
 */

const STATES = new Set(["done", "running", "stopped", "failed"]);

/** @param {unknown} value */
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
/** @param {unknown} value */
const string = (value) => (typeof value === "string" ? value : null);

/**
 * @param {unknown} value
 * @returns {Turn | null} `null`: it is none
 */
export function asTurn(value) {
  if (typeof value !== "object" || value === null) return null;
  const given = /** @type {Record<string, any>} */ (value);
  const id = number(given["id"]);
  if (id === null || !["user", "assistant"].includes(given["role"]) || typeof given["text"] !== "string")
    return null;
  const error = given["error"];
  return {
    id,
    role: given["role"],
    text: given["text"],
    state: STATES.has(given["state"]) ? given["state"] : "done",
    seq: number(given["seq"]) ?? 0,
    reasoning: string(given["reasoning"]) ?? "",
    model: string(given["model"]),
    tokens: number(given["tokens"]),
    seconds: number(given["seconds"]),
    ttft_s: number(given["ttft_s"]),
    tokens_per_s: number(given["tokens_per_s"]),
    finish_reason: string(given["finish_reason"]),
    trace_id: /^[0-9a-f]{32}$/.test(given["trace_id"]) ? given["trace_id"] : null,
    dropped: number(given["dropped"]) ?? 0,
    progress: null,
    error: typeof error?.what === "string" ? { what: error.what, hint: string(error.hint) ?? "" } : null,
  };
}

export class Transcript {
  /** @type {Turn[]} */
  turns = [];
  /** Turns of which a piece was missed: their whole text has to be asked for. @type {Set<number>} */
  missing = new Set();

  /** The answer that is being written. */
  get running() {
    return this.turns.find(({ state }) => state === "running") ?? null;
  }

  /**
   * Take the whole list; of a turn that is being written what is known already may be newer.
   *
   * @param {unknown} given
   */
  load(given) {
    if (!Array.isArray(given)) return;
    const known = new Map(this.turns.map((turn) => [turn.id, turn]));
    this.turns = given.flatMap((one) => {
      const turn = asTurn(one);
      if (!turn) return [];
      const before = known.get(turn.id);
      return [turn.state === "running" && before && before.seq > turn.seq ? before : turn];
    });
    for (const id of this.missing) if (this.running?.id !== id) this.missing.delete(id);
  }

  /**
   * A piece of text that came; one that is not the next is not taken.
   *
   * @param {unknown} message
   * @returns {boolean} whether anything changed
   */
  apply(message) {
    if (typeof message !== "object" || message === null) return false;
    const { type, turn: id, seq, text, reasoning, tokens, progress } = /** @type {any} */ (message);
    const turn =
      type === "piece" ? this.turns.find((one) => one.id === id && one.state === "running") : undefined;
    if (!turn || typeof seq !== "number" || typeof text !== "string") return false;
    if (seq !== turn.seq + 1) {
      if (seq > turn.seq) this.missing.add(turn.id);
      return false;
    }
    turn.seq = seq;
    turn.text += text;
    turn.reasoning += string(reasoning) ?? "";
    turn.tokens = number(tokens) ?? turn.tokens;
    turn.progress = number(progress);
    return true;
  }

  /**
   * A turn as it is now, for one of which a piece was missed.
   *
   * @param {unknown} given
   */
  replace(given) {
    const turn = asTurn(given);
    if (!turn) return;
    this.missing.delete(turn.id);
    this.turns = this.turns.map((one) => (one.id === turn.id && one.seq <= turn.seq ? turn : one));
  }

  /** The whole conversation as Markdown, as it was written. */
  markdown() {
    const names = { user: "You", assistant: "Model" };
    return this.turns.map(({ role, text }) => `**${names[role]}**\n\n${text}\n`).join("\n");
  }
}
