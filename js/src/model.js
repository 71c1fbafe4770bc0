/** The widget's model as this bundle uses it; a listener ends with its AbortSignal, so that a closed view costs nothing. */

/**
 * @typedef {{
 *   get(name: string): unknown,
 *   on(name: string, fn: (...args: any[]) => void): void,
 *   off(name: string, fn: (...args: any[]) => void): void,
 *   send(content: unknown, callbacks?: unknown, buffers?: unknown): void,
 * }} AnyModel
 */

export class Model {
  #model;
  #signal;
  #requests = 0;

  /**
   * @param {AnyModel} model
   * @param {AbortSignal} signal
   */
  constructor(model, signal) {
    this.#model = model;
    this.#signal = signal;
  }

  get snapshot() {
    return this.#model.get("snapshot");
  }

  get seq() {
    const seq = this.#model.get("seq");
    return typeof seq === "number" ? seq : 0;
  }

  /** Id of the static picture of the same dashboard in the same notebook; only hexadecimal digits are believed. */
  get staticId() {
    const id = this.#model.get("static_id");
    return typeof id === "string" && /^[0-9a-f-]{8,64}$/.test(id) ? id : null;
  }

  /** @param {() => void} fn */
  onSnapshot(fn) {
    this.#on("change:snapshot", fn);
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
