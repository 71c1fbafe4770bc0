/** The widget's model as this bundle uses it; a listener ends with its AbortSignal, so that a closed view costs nothing. */

/**
 * @typedef {{
 *   get(name: string): unknown,
 *   on(name: string, fn: (...args: any[]) => void): void,
 *   off(name: string, fn: (...args: any[]) => void): void,
 *   send(content: unknown, callbacks?: unknown, buffers?: unknown): void,
 *   widget_manager?: unknown,
 * }} AnyModel
 */

/** A request's answer that is an error: what happened, and what to type. */
export class Refused extends Error {
  /**
   * @param {string} what
   * @param {string} hint
   */
  constructor(what, hint) {
    super(what);
    this.hint = hint;
  }
}

/** @typedef {(stage: string, fraction: number | null) => void} OnProgress */
/** @typedef {{ resolve: (data: any) => void, reject: (error: Error) => void, onProgress: OnProgress | undefined }} Asked */

export class Model {
  #model;
  #signal;
  #requests = 0;
  /** Of every widget's every view: Python answers to all of them. */
  #own = Math.random().toString(36).slice(2, 10);
  /** @type {Map<string, Asked>} */
  #asked = new Map();

  /**
   * @param {AnyModel} model
   * @param {AbortSignal} signal
   */
  constructor(model, signal) {
    this.#model = model;
    this.#signal = signal;
    this.onMessage((content) => this.#answer(content));
  }

  /**
   * Have Python do something (llamatelemetry_jupyter/replies.py). The answer comes late while a cell runs, and never when
   * the kernel is gone: whoever asks says so meanwhile. Rejects with {@link Refused}.
   *
   * @param {string} op
   * @param {Record<string, unknown>} [args]
   * @param {OnProgress} [onProgress]
   * @returns {Promise<any>}
   */
  request(op, args = {}, onProgress = undefined) {
    this.#requests += 1;
    const id = `${this.#own}-${this.#requests}`;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject, onProgress });
      this.#model.send({ id, op, args });
    });
  }

  /**
   * Nobody will answer what was asked.
   *
   * @param {Error} error
   */
  abandon(error) {
    for (const { reject } of this.#asked.values()) reject(error);
    this.#asked.clear();
  }

  /** @param {unknown} content */
  #answer(content) {
    const { type, id, ok, data, error, stage, fraction } = /** @type {any} */ (content ?? {});
    const asked = typeof id === "string" ? this.#asked.get(id) : undefined;
    if (!asked) return;
    if (type === "progress")
      asked.onProgress?.(String(stage), typeof fraction === "number" ? fraction : null);
    if (type !== "reply") return;
    this.#asked.delete(id);
    if (ok === true) asked.resolve(data);
    else asked.reject(new Refused(String(error?.what ?? "no answer"), String(error?.hint ?? "")));
  }

  get snapshot() {
    return this.#model.get("snapshot");
  }

  get seq() {
    const seq = this.#model.get("seq");
    return typeof seq === "number" ? seq : 0;
  }

  /** Whether this is a page of what was, without a kernel (llamatelemetry_jupyter/views/page.py). */
  get recorded() {
    return this.#model.get("recorded") === true;
  }

  /** Id of the static picture of the same dashboard in the same notebook; only hexadecimal digits are believed. */
  get staticId() {
    const id = this.#model.get("static_id");
    return typeof id === "string" && /^[0-9a-f-]{8,64}$/.test(id) ? id : null;
  }

  /** @param {string} name */
  get(name) {
    return this.#model.get(name);
  }

  /** The host's own object behind all widgets of a page; what it can do depends on the host. */
  get manager() {
    return this.#model.widget_manager;
  }

  /** @param {() => void} fn */
  onSnapshot(fn) {
    this.onChange("snapshot", fn);
  }

  /**
   * @param {string} name
   * @param {() => void} fn
   */
  onChange(name, fn) {
    this.#on(`change:${name}`, fn);
  }

  /** @param {() => void} fn The connection to the kernel was lost, or is back. */
  onConnection(fn) {
    this.#on("comm_live_update", fn);
  }

  /** @param {(content: unknown, buffers: readonly DataView[]) => void} fn */
  onMessage(fn) {
    this.#on("msg:custom", fn);
  }

  /** Ask Python for a whole snapshot. It may answer late or never: a busy kernel handles no messages. */
  requestSnapshot() {
    this.#requests += 1;
    this.#model.send({ id: `snapshot-${this.#requests}`, op: "snapshot", args: {} });
  }

  /**
   * @param {string} name
   * @param {(...args: any[]) => void} fn
   */
  #on(name, fn) {
    if (this.#signal.aborted) return;
    this.#model.on(name, fn);
    this.#signal.addEventListener("abort", () => this.#model.off(name, fn), { once: true });
  }
}
