/**
 * Colours, patterns and names; the owners' table is the same as in llamatelemetry_jupyter/views/theme.py (a test
 * compares them), so that the live dashboard and the saved picture speak one language.
 *
 * A pattern goes with every colour: an owner is recognised without seeing colours.
 */

/** @typedef {{ label: string, light: string, dark: string, pattern: string }} OwnerLook */
/** @typedef {{ label: string, light: string, dark: string, shape: string }} SpanLook */
/** @typedef {{ light: string, dark: string, pattern?: string }} Look */

/** Tiles of 8 × 8 px: these lines and dots in the page's colour over the owner's colour. @type {Record<string, string>} */
export const PATTERNS = {
  solid: "",
  diagonal: "M-2 2L2 -2M0 8L8 0M6 10L10 6",
  antidiagonal: "M-2 6L2 10M0 0L8 8M6 -2L10 2",
  horizontal: "M0 4H8",
  vertical: "M4 0V8",
  grid: "M0 4H8M4 0V8",
  cross: "M0 0L8 8M8 0L0 8",
  dots: "M2 2h1M6 6h1",
  sparse: "M4 4h1",
};

/** In stacking order, bottom first. @type {Record<string, OwnerLook>} */
export const OWNERS = {
  weights: { label: "weights", light: "#0072b2", dark: "#56b4e9", pattern: "solid" },
  kv: { label: "KV cache", light: "#c44e00", dark: "#ee7a30", pattern: "diagonal" },
  compute: { label: "compute buffers", light: "#00866a", dark: "#2fc39a", pattern: "dots" },
  output: { label: "output buffer", light: "#b5629a", dark: "#e08fbf", pattern: "cross" },
  context: { label: "engine itself", light: "#5b6fc0", dark: "#93a3ee", pattern: "horizontal" },
  kernel: { label: "this kernel", light: "#8f7000", dark: "#e6b422", pattern: "vertical" },
  other: { label: "other processes", light: "#6e6e6e", dark: "#a8a8a8", pattern: "grid" },
  unknown: { label: "not attributed", light: "#83807b", dark: "#8f8c87", pattern: "antidiagonal" },
  free: { label: "free", light: "#8c8c8c", dark: "#7d7d7d", pattern: "sparse" },
};

/** @type {Record<string, SpanLook>} */
export const SPANS = {
  cell: { label: "cell", light: "#5f6b76", dark: "#9aa7b3", shape: "square" },
  chat: { label: "request", light: "#0072b2", dark: "#56b4e9", shape: "circle" },
  queue: { label: "queue", light: "#8f7000", dark: "#e6b422", shape: "triangle" },
  prefill: { label: "prefill", light: "#b5629a", dark: "#e08fbf", shape: "diamond" },
  decode: { label: "decode", light: "#00866a", dark: "#2fc39a", shape: "hexagon" },
  error: { label: "error", light: "#c62f1d", dark: "#ff7a66", shape: "cross" },
  other: { label: "other span", light: "#6e6e6e", dark: "#a8a8a8", shape: "circle" },
};

/** What a session's graph has besides spans. @type {Record<string, SpanLook>} */
export const NODES = {
  notebook: { label: "notebook", light: "#3f4851", dark: "#c3ccd5", shape: "page" },
  trace: { label: "trace", light: "#5b6fc0", dark: "#93a3ee", shape: "ring" },
  model: { label: "model", light: "#c44e00", dark: "#ee7a30", shape: "star" },
  device: { label: "device", light: "#8f7000", dark: "#e6b422", shape: "chip" },
};

/** Marks around (0, 0), 13 px wide. @type {Record<string, string>} */
export const SHAPES = {
  square: "M-5.5-5.5h11v11h-11z",
  circle: "M0-6.5a6.5 6.5 0 1 0 .01 0z",
  triangle: "M0-6.5L6.5 5.5H-6.5z",
  diamond: "M0-7.5L7.5 0L0 7.5L-7.5 0z",
  hexagon: "M-3.5-6h7l3.5 6l-3.5 6h-7l-3.5-6z",
  cross: "M-5-5L5 5M5-5L-5 5",
  page: "M-5-6.5h6.5l3.5 3.5v9.5h-10z",
  ring: "M0-6.5a6.5 6.5 0 1 0 .01 0zM0-3a3 3 0 1 1-.01 0z",
  star: "M0-7L2-2.3L7-2L3.1 1.3L4.4 6.3L0 3.5L-4.4 6.3L-3.1 1.3L-7-2L-2-2.3z",
  chip: "M-4-4h1.5v-2.5h1.5v2.5h2v-2.5h1.5v2.5h1.5v8h-1.5v2.5h-1.5v-2.5h-2v2.5h-1.5v-2.5h-1.5z",
};

/** A sign beside each state's word, so that colour is not needed. @type {Record<string, string>} */
export const STATES = {
  starting: "\u25cc",
  loading: "\u25cc",
  ready: "\u25cf",
  generating: "\u25b6",
  sleeping: "\u25d1",
  crashed: "\u2715",
  stopped: "\u25a0",
  unreachable: "?",
};

const PHASES = new Set(["queue", "prefill", "decode"]);
const OPERATIONS = new Set(["chat", "text_completion", "generate_content", "embeddings", "rerank"]);

/**
 * The kind of a span by its name: `notebook cell` → cell, `chat smollm2` → chat, `decode` → decode.
 *
 * @param {string} name
 * @returns {string} Key of SPANS.
 */
export function spanKind(name) {
  const at = name.indexOf(" ");
  const first = at < 0 ? name : name.slice(0, at);
  if (OPERATIONS.has(first)) return "chat";
  if (first === "cell" || (first === "notebook" && name.slice(at + 1).startsWith("cell"))) return "cell";
  return PHASES.has(name) ? name : "other";
}

export class Theme {
  dark = false;
  /** Whether the page was ever asked. */
  known = false;
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
    const attributeFilter = [
      "class",
      "style",
      "theme",
      "data-theme",
      "data-jp-theme-light",
      "data-vscode-theme-kind",
    ];
    observer.observe(document.documentElement, { attributes: true, attributeFilter });
    observer.observe(document.body, { attributes: true, attributeFilter });
    signal.addEventListener("abort", () => observer.disconnect(), { once: true });
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", soon, { signal });
    }
    this.read();
  }

  /**
   * Take the page's colours over; true when something changed. A root that is not on the page yet has none: widgets are
   * often rendered before they are attached.
   */
  read() {
    if (!this.#root.isConnected) return false;
    this.known = true;
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
    const changed = Object.entries(next).some(
      ([key, value]) => this[/** @type {keyof typeof next} */ (key)] !== value,
    );
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
    const made = tile(PATTERNS[look.pattern ?? "solid"] ?? "", this.color(look), this.ground);
    this.#fills.set(key, made);
    return made;
  }
}

/**
 * @param {string} path
 * @param {string} color
 * @param {string} ground
 * @returns {CanvasPattern | string}
 */
function tile(path, color, ground) {
  if (path === "") return color;
  const ratio = Math.max(1, Math.round(devicePixelRatio));
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8 * ratio;
  const ctx = canvas.getContext("2d");
  if (!ctx) return color;
  ctx.scale(ratio, ratio);
  ctx.fillStyle = color;
  ctx.fillRect(0, 0, 8, 8);
  ctx.globalAlpha = 0.6;
  ctx.strokeStyle = ground;
  ctx.lineWidth = 1.2;
  ctx.stroke(new Path2D(path));
  return ctx.createPattern(canvas, "repeat") ?? color;
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
  const { classList } = body;
  // Its light theme of high contrast has both classes of that name.
  if (classList.contains("vscode-light") || classList.contains("vscode-high-contrast-light")) return false;
  if (classList.contains("vscode-dark") || classList.contains("vscode-high-contrast")) return true;
  const named = html.getAttribute("theme") ?? html.dataset.theme ?? body.dataset.theme;
  return named ? named === "dark" : groundIsDark(root);
}

/**
 * Whether the nearest opaque background below an element is dark.
 *
 * @param {HTMLElement} root
 */
export function groundIsDark(root) {
  for (let el = root.parentElement; el; el = el.parentElement) {
    const channels =
      getComputedStyle(el)
        .backgroundColor.match(/[\d.]+/g)
        ?.map(Number) ?? [];
    const [r = 255, g = 255, b = 255, alpha = 1] = channels;
    if (channels.length >= 3 && alpha > 0.5) return 0.2126 * r + 0.7152 * g + 0.0722 * b < 110;
  }
  return false;
}
