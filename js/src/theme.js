/**
 * Colours, patterns and names; the owners' table is the same as in llamatelemetry_jupyter/views/theme.py (a test
 * compares them), so that the live dashboard and the saved picture speak one language.
 *
 * A pattern goes with every colour: an owner is recognised without seeing colours.
 */

/** @typedef {{ label: string, light: string, dark: string, pattern: Pattern }} Look */
/** @typedef {"solid" | "diagonal" | "dots" | "horizontal" | "cross" | "back" | "vertical" | "sparse" | "none"} Pattern */

/** In stacking order, bottom first. @type {Record<string, Look>} */
export const OWNERS = {
  weights: { label: "Weights", light: "#3d6fb4", dark: "#5b8fd6", pattern: "solid" },
  kv: { label: "KV cache", light: "#d9822b", dark: "#e39a4a", pattern: "diagonal" },
  compute: { label: "Compute buffers", light: "#3f9385", dark: "#57b3a3", pattern: "dots" },
  output: { label: "Output buffer", light: "#b0578f", dark: "#cc7bae", pattern: "horizontal" },
  context: { label: "Engine context", light: "#7b6bb5", dark: "#9a8bd4", pattern: "cross" },
  kernel: { label: "This kernel", light: "#6a9440", dark: "#8bb85e", pattern: "back" },
  other: { label: "Other processes", light: "#8a8f98", dark: "#7d838d", pattern: "sparse" },
  unknown: { label: "Unattributed", light: "#b9a06a", dark: "#a8935f", pattern: "vertical" },
  free: { label: "Free", light: "#e9ebee", dark: "#2c2f34", pattern: "none" },
};

/** Kinds of spans, by the first word of their name. @type {Record<string, Look>} */
export const SPANS = {
  cell: { label: "cell", light: "#8a8f98", dark: "#8d939c", pattern: "solid" },
  chat: { label: "call", light: "#3d6fb4", dark: "#5b8fd6", pattern: "solid" },
  queue: { label: "queue", light: "#b9a06a", dark: "#a8935f", pattern: "vertical" },
  prefill: { label: "prefill", light: "#d9822b", dark: "#e39a4a", pattern: "diagonal" },
  decode: { label: "decode", light: "#3f9385", dark: "#57b3a3", pattern: "dots" },
  other: { label: "span", light: "#7b6bb5", dark: "#9a8bd4", pattern: "horizontal" },
};

/** Lines of the rate panels. @type {Record<string, Look & { dash: number[] }>} */
export const LINES = {
  decode: { label: "output", light: "#3f9385", dark: "#57b3a3", pattern: "solid", dash: [] },
  input: { label: "input", light: "#d9822b", dark: "#e39a4a", pattern: "solid", dash: [5, 3] },
  busy: { label: "busy", light: "#3d6fb4", dark: "#5b8fd6", pattern: "solid", dash: [] },
  queued: { label: "queued", light: "#b0578f", dark: "#cc7bae", pattern: "solid", dash: [2, 3] },
};

/** @param {string} name @returns {string} Key of SPANS. */
export function spanKind(name) {
  const word = name.split(/[\s.:[]/, 1)[0] ?? "";
  if (word in SPANS && word !== "other") return word;
  return word === "text_completion" || word === "embeddings" ? "chat" : "other";
}

export class Theme {
  dark = false;
  /** Changes whenever anything that drawings depend on changes. */
  version = 0;
  ink = "#222";
  muted = "#666";
  grid = "#e5e5e5";
  ground = "#fff";
  accent = "#1a73e8";
  font = "11px sans-serif";
  #root;
  /** @type {Map<string, CanvasPattern | string>} */
  #fills = new Map();

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#root = root;
  }

  /**
   * Look at the page again now and whenever it may have changed.
   *
   * @param {() => void} onChange
   * @param {AbortSignal} signal
   */
  follow(onChange, signal) {
    const again = () => {
      if (this.read()) onChange();
    };
    // JupyterLab announces a theme before its style sheet has been applied.
    const soon = () => {
      again();
      setTimeout(() => !signal.aborted && again(), 150);
    };
    const observer = new MutationObserver(soon);
    const attributeFilter = ["class", "style", "theme", "data-theme", "data-jp-theme-light", "data-vscode-theme-kind"];
    observer.observe(document.documentElement, { attributes: true, attributeFilter });
    observer.observe(document.body, { attributes: true, attributeFilter });
    signal.addEventListener("abort", () => observer.disconnect(), { once: true });
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", soon, { signal });
    }
    this.read();
  }

  /** Take the page's colours over; true when something changed. */
  read() {
    const dark = isDark(this.#root);
    this.#root.dataset.theme = dark ? "dark" : "light";
    const style = getComputedStyle(this.#root);
    const color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const next = {
      dark,
      ink: color("--ll-ink"),
      muted: color("--ll-muted"),
      grid: color("--ll-grid"),
      ground: color("--ll-ground"),
      accent: color("--ll-accent"),
      font: `11px ${style.fontFamily}`,
    };
    const changed = Object.entries(next).some(([key, value]) => this[/** @type {keyof typeof next} */ (key)] !== value);
    if (!changed) return false;
    Object.assign(this, next);
    this.#fills.clear();
    this.version += 1;
    return true;
  }

  /** @param {Look} look */
  color(look) {
    return this.dark ? look.dark : look.light;
  }

  /**
   * A look as a canvas fill, its pattern included.
   *
   * @param {Look} look
   * @returns {CanvasPattern | string}
   */
  fill(look) {
    const key = `${this.color(look)} ${look.pattern} ${devicePixelRatio}`;
    const known = this.#fills.get(key);
    if (known) return known;
    const made = pattern(look.pattern, this.color(look), this.dark);
    this.#fills.set(key, made);
    return made;
  }
}

/**
 * @param {Pattern} kind
 * @param {string} color
 * @param {boolean} dark
 * @returns {CanvasPattern | string}
 */
function pattern(kind, color, dark) {
  if (kind === "solid" || kind === "none") return color;
  const ratio = Math.max(1, Math.round(devicePixelRatio));
  const size = 8;
  const tile = document.createElement("canvas");
  tile.width = tile.height = size * ratio;
  const ctx = tile.getContext("2d");
  if (!ctx) return color;
  ctx.scale(ratio, ratio);
  ctx.fillStyle = color;
  ctx.fillRect(0, 0, size, size);
  ctx.strokeStyle = ctx.fillStyle = dark ? "rgba(0,0,0,.38)" : "rgba(255,255,255,.5)";
  ctx.lineWidth = 1.6;
  /** @type {Record<string, number[][]>} Lines as [x0, y0, x1, y1]; drawn past the tile's edge so that they join. */
  const lines = {
    diagonal: [
      [-2, 10, 10, -2],
      [-2, 2, 2, -2],
      [6, 10, 10, 6],
    ],
    back: [
      [-2, -2, 10, 10],
      [6, -2, 10, 2],
      [-2, 6, 2, 10],
    ],
    horizontal: [[0, 4, 8, 4]],
    vertical: [[4, 0, 4, 8]],
    cross: [
      [-2, 10, 10, -2],
      [-2, -2, 10, 10],
    ],
    sparse: [[-2, 10, 10, -2]],
  };
  ctx.beginPath();
  for (const [x0 = 0, y0 = 0, x1 = 0, y1 = 0] of lines[kind] ?? []) {
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
  }
  if (kind === "sparse") ctx.lineWidth = 0.8;
  ctx.stroke();
  if (kind === "dots") {
    for (const [x, y] of /** @type {const} */ ([
      [2, 2],
      [6, 6],
    ])) {
      ctx.beginPath();
      ctx.arc(x, y, 1.2, 0, 7);
      ctx.fill();
    }
  }
  return ctx.createPattern(tile, "repeat") ?? color;
}

/**
 * Hosts say it in their own ways; where none is known (Kaggle) the nearest opaque background decides. The operating
 * system's preference does not: a notebook is often light on a dark system.
 *
 * @param {HTMLElement} root
 */
function isDark(root) {
  const { body, documentElement: html } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  const kind = body.dataset.vscodeThemeKind;
  if (kind) return /dark|^vscode-high-contrast$/.test(kind);
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast")) return true;
  if (body.classList.contains("vscode-light")) return false;
  const named = html.getAttribute("theme") ?? html.dataset.theme ?? body.dataset.theme;
  if (named) return named === "dark";
  for (let el = root.parentElement; el; el = el.parentElement) {
    const channels = getComputedStyle(el).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [];
    const [r = 255, g = 255, b = 255, alpha = 1] = channels;
    if (channels.length >= 3 && alpha > 0.5) return 0.2126 * r + 0.7152 * g + 0.0722 * b < 110;
  }
  return false;
}
