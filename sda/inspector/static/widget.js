/* The inspector's front-end: one view, live beside a kernel and recorded in a page.
   A plain ES module: no build step, nothing fetched, every name drawn as text. */

// ---------------------------------------------------------------- numbers, edits

const MINUS = "\u2212";
const FRAMES = { reversed: "Reverse", shuffled: "Shuffle", frozen: "Freeze", blurred: "Blur" };
const READINGS = ["weight", "contribution", "loss"];
const known = (x) => typeof x === "number" && Number.isFinite(x);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const round2 = (x) => Math.round(x * 100) / 100;

function number(x, places = 2) {
  return known(x) ? (Math.abs(x) < 0.5 * 10 ** -places ? 0 : x).toFixed(places).replace("-", MINUS) : "–";
}

function signed(x, places = 2) {
  const text = number(x, places);
  return known(x) && x >= 0.5 * 10 ** -places ? `+${text}` : text;
}

function raw(x) {
  return known(x) ? Number(x.toPrecision(2)).toString().replace("-", MINUS) : "–";
}

function ordinal(n) {
  const last = n % 100 > 10 && n % 100 < 14 ? 0 : n % 10;
  return `${n}${["th", "st", "nd", "rd"][last] ?? "th"}`;
}

function left(seconds) {
  if (!known(seconds)) return "";
  return seconds < 90 ? `about ${Math.max(1, Math.round(seconds))} s left` : `about ${Math.round(seconds / 60)} min left`;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

/** The canonical text of a list of edits; sda.inspector's edits_key writes the same. */
export function editsKey(edits) {
  const texts = edits.map((edit) => {
    const names = ["kind", "block", "dependency", "value"].filter((name) => (edit[name] ?? null) !== null);
    const value = (x) => JSON.stringify(typeof x === "number" ? round2(x) : x);
    return `{${names.map((name) => `"${name}":${value(edit[name])}`).join(",")}}`;
  });
  return `[${[...new Set(texts)].sort().join(",")}]`;
}

const makeEdit = (kind, block = null, dependency = null, value = null) => ({ kind, block, dependency, value });
const inRow = (edit, block) => edit.kind !== "frames" && (edit.block ?? null) === block;

/** The edits after one more gesture: the same again takes it back, what contradicts it gives way. */
export function withEdit(edits, edit) {
  const same = editsKey([edit]);
  const others = edits.filter((one) => editsKey([one]) !== same);
  if (others.length < edits.length) return others;
  const gives = (one) => {
    if (edit.kind === "frames") return one.kind === "frames" && (one.value === "blurred") === (edit.value === "blurred");
    if (!inRow(one, edit.block)) return false;
    if (edit.kind === "only" && one.dependency === edit.dependency) return one.kind === "drop";
    if (edit.kind === "uniform" || edit.kind === "only" || one.kind === "only") return true;
    return one.dependency === edit.dependency && one.kind !== "uniform";
  };
  return [...others.filter((one) => !gives(one)), edit];
}

/** The edits after a shift-click on a closed cell: open there, and kept alone. */
function keptOpen(edits, block, dependency) {
  const only = makeEdit("only", block, dependency);
  const open = makeEdit("open", block, dependency);
  const has = (one) => edits.some((edit) => editsKey([edit]) === editsKey([one]));
  return withEdit(has(open) || has(only) ? edits : withEdit(edits, open), only);
}

/** What a block selects after the edits that touch it: all alike, then given weights, then what is left out.
    `wide`: what independent gates weigh when they are wide open; else the weights of a row share their sum. */
export function editedRow(row, block, edits, wide = null) {
  const mine = edits.filter((edit) => edit.kind !== "frames" && (edit.block ?? block) === block);
  const of = (kind) => mine.filter((edit) => edit.kind === kind);
  const there = row.map((w) => w !== null);
  const full = wide ?? row.map(() => 1 / there.filter(Boolean).length);
  let weights = row.map((w, m) => (of("uniform").length && w !== null ? full[m] : w ?? 0));
  const given = new Map(of("open").map((edit) => [edit.dependency, full[edit.dependency]]));
  of("weight").forEach((edit) => given.set(edit.dependency, edit.value));
  const sum = (some) => some.reduce((a, b) => a + b, 0);
  const free = sum(weights.filter((_, m) => !given.has(m)));
  const rest = wide ? free : Math.max(0, 1 - sum([...given.values()]));
  if (given.size) weights = weights.map((w, m) => given.get(m) ?? (free > 0 ? (w / free) * rest : 0));
  if (given.size && !wide) weights = weights.map((w) => w / (sum(weights) || 1));
  const only = new Set(of("only").map((edit) => edit.dependency));
  const gone = new Set(of("drop").map((edit) => edit.dependency));
  const kept = weights.map((w, m) => (gone.has(m) || (only.size && !only.has(m)) ? 0 : w));
  const share = sum(kept) > 0 ? sum(weights) / sum(kept) : 0;
  return kept.map((w, m) => (there[m] ? w * share : null));
}

function editWords(edit, about) {
  const { blocks, dependencies } = about.network;
  const where = (edit.block ?? null) === null ? "everywhere" : `in ${blocks[edit.block]}`;
  const name = dependencies[edit.dependency];
  return {
    drop: () => `${name} left out ${where}`,
    only: () => `only ${name} ${where}`,
    open: () => `${name} open ${where}`,
    uniform: () => `${about.network.wide ? "all gates open" : "uniform weights"} ${where}`,
    weight: () => `${name} at ${number(edit.value)} ${where}`,
    frames: () => `frames ${edit.value}`,
  }[edit.kind]();
}

// ---------------------------------------------------------------- stores

/** The store of a live widget: a thin wrapper over the anywidget model. */
function liveStore(model) {
  return {
    get: (name) => model.get(name),
    set: (name, value) => model.set(name, value),
    save: () => model.save_changes(),
    send: (message, buffers = []) => model.send(message, undefined, buffers),
    on(name, callback) {
      const event = { message: "msg:custom", alive: "comm_live_update" }[name] ?? `change:${name}`;
      const heard = name === "alive" ? () => callback(model.comm_live !== false) : callback;
      model.on(event, heard);
      return () => model.off(event, heard);
    },
  };
}

/** The store of a recorded page: every answer lies in the record, the state goes into the address. */
export function recorded(block) {
  const listeners = new Map();
  const maps = Object.values(block.record).flatMap((one) => one.maps ?? []);
  const layers = [...new Set(maps.map((one) => one.layer))].map((name) => ({ name, words: name }));
  const methods = [...new Set(maps.map((one) => one.method))];
  const state = { other: null, map: null, ...block, about: { ...block.about, live: false, layers, methods } };
  const kept = ["selected", "edits", "reading", "beside", "filters", "look"];
  const put = (name, value) => {
    state[name] = value;
    [...(listeners.get(name) ?? [])].forEach((callback) => callback(value));
  };
  const swap = () => {
    const here = block.record[state.selected];
    put("answers", here?.answers ?? { items: {} });
    put("scene", here?.scene ?? null);
    put("map", state.map ? mapLike(here?.maps, state.map) : null);
    put("other", besideOf(block.record, state));
    const there = state.beside?.frames ? null : block.record[state.beside?.clip];
    put("other_map", state.map ? mapLike(there?.maps, state.map) : null);
    if (!here) put("status", absent("scene", "This page does not hold that clip; its row in the list is all there is."));
  };
  try {
    const asked = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
    for (const name of kept) if (name in asked) state[name] = asked[name];
    if (!Array.isArray(state.edits)) state.edits = [];
  } catch {
    // an address that somebody cut short opens the page as it was recorded
  }
  if (!block.record[state.selected]) state.selected = Object.keys(block.record)[0] ?? null;
  swap();
  return {
    get: (name) => state[name],
    set(name, value) {
      put(name, value);
      if (name === "selected" || name === "beside") swap();
    },
    save() {
      const address = Object.fromEntries(kept.map((name) => [name, state[name]]));
      try {
        history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(address))}`);
      } catch {
        // some viewers of saved pages forbid it; the page works without
      }
    },
    send(message) {
      if (message.ask !== "map") return;
      const found = mapLike(block.record[state.selected]?.maps, message);
      put("map", message.layer ? found : null);
      swap();
      const missing = message.layer && !found?.targets[message.target];
      put("status", missing ? absent("map", "This page does not hold that map.") : { state: "ready" });
    },
    on(name, callback) {
      if (!listeners.has(name)) listeners.set(name, new Set());
      listeners.get(name).add(callback);
      return () => listeners.get(name).delete(callback);
    },
  };
}

const mapLike = (maps, { layer, method }) => maps?.find((m) => m.layer === layer && m.method === method) ?? null;

/** Side B of a recorded page: another clip, or the same frames changed. */
function besideOf(record, { beside, selected }) {
  if (!beside) return null;
  const there = record[beside.clip ?? selected];
  if (!there || beside.network) return null;
  if (!beside.frames) return there.scene;
  const changed = there.frames?.[beside.frames];
  if (!changed) return null;
  const order = changed.order ?? there.scene.frames.map((_, t) => t);
  return { ...there.scene, finding: null, ...changed, frames: order.map((t) => there.scene.frames[t]) };
}

function absent(where, message) {
  return { state: "error", where, message, remedy: "Open the clips live to ask for more: sda app FOLDER" };
}

// ---------------------------------------------------------------- elements

const tips = new WeakMap();
const SVG = "http://www.w3.org/2000/svg";
let serial = 0;

function dress(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "tip") tips.set(node, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, v]) => node.style.setProperty(key, v));
    else node.setAttribute(name, value === true ? "" : value);
  }
  return node;
}

function h(tag, props = {}, ...children) {
  const node = dress(document.createElement(tag), props);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function svg(tag, props = {}, ...children) {
  const node = dress(document.createElementNS(SVG, tag), props);
  node.append(...children.flat());
  return node;
}

function button(words, act, props = {}) {
  return h("button", { type: "button", onclick: act, ...props }, words);
}

/** New children; what had the keyboard keeps it. */
function fill(parent, ...children) {
  const key = parent.getRootNode().activeElement?.closest?.("[data-key]")?.dataset.key;
  const inside = key !== undefined && parent.contains(parent.getRootNode().activeElement);
  parent.replaceChildren(...children.flat().filter(Boolean));
  if (inside) [...parent.querySelectorAll("[data-key]")].find((node) => node.dataset.key === key)?.focus();
}

function text(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

function picture(source, props) {
  return h("img", { src: String(source).startsWith("data:image/") ? source : null, draggable: "false", ...props });
}

/** One tooltip for the whole view: at the pointer's element or at what has the keyboard. */
function addTooltip(root) {
  const box = h("div", { class: "tip", role: "tooltip", id: `sda-tip-${(serial += 1)}`, hidden: true });
  let owner = null;
  let soon = 0;
  const hide = () => {
    clearTimeout(soon);
    box.hidden = true;
    owner?.removeAttribute("aria-describedby");
    owner = null;
  };
  const show = (event) => {
    let node = event.target;
    while (node && node !== root && !tips.has(node)) node = node.parentElement;
    if (node === owner) return;
    const open = !box.hidden;
    hide();
    if (!node || node === root) return;
    if (event.type === "focusin") return node.matches(":focus-visible") && write(node);
    if (open) return write(node);
    soon = setTimeout(() => node.isConnected && write(node), 250);
  };
  const write = (node) => {
    const said = tips.get(node);
    const lines = [typeof said === "function" ? said() : said].flat().filter(Boolean);
    if (!lines.length) return;
    box.replaceChildren(...lines.map((line, k) => h(k ? "span" : "strong", {}, line)));
    if (lines.length === 1) box.replaceChildren(h("span", {}, lines[0]));
    box.hidden = false;
    owner = node;
    owner.setAttribute("aria-describedby", box.id);
    const at = node.getBoundingClientRect();
    const own = box.getBoundingClientRect();
    const wide = document.documentElement.clientWidth;
    const top = at.bottom + 8 + own.height > document.documentElement.clientHeight ? at.top - own.height - 8 : at.bottom + 8;
    box.style.left = `${clamp(at.left + at.width / 2 - own.width / 2, 6, Math.max(6, wide - own.width - 6))}px`;
    box.style.top = `${Math.max(4, top)}px`;
  };
  root.addEventListener("pointerover", show);
  root.addEventListener("focusin", show);
  root.addEventListener("pointerleave", hide);
  root.addEventListener("focusout", hide);
  root.addEventListener("pointerdown", hide);
  root.addEventListener("scroll", hide, true);
  root.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  root.append(box);
}

// ---------------------------------------------------------------- colours

const INFERNO = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
// reading -> what lies above and below the number that means nothing, as in the project's figures
const PALETTES = {
  light: { paper: [255, 255, 255], weight: [[196, 92, 10], [84, 39, 136]], contribution: [[1, 102, 94], [140, 81, 10]], loss: [[178, 24, 43], [33, 102, 172]], difference: [[27, 120, 55], [118, 42, 131]] },
  dark: { paper: [38, 42, 48], weight: [[255, 176, 84], [184, 160, 255]], contribution: [[92, 214, 190], [222, 168, 96]], loss: [[255, 128, 114], [118, 182, 255]], difference: [[120, 210, 130], [214, 150, 230]] },
};

function mixed(stops, share) {
  const at = clamp(share, 0, 1) * (stops.length - 1);
  const k = Math.min(Math.floor(at), stops.length - 2);
  return stops[k].map((c, i) => Math.round(c + (stops[k + 1][i] - c) * (at - k)));
}

function luminance(colour) {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const css = (colour) => `rgb(${colour.join(" ")})`;
const inkOn = (colour) => (luminance(colour) > 0.179 ? "#000" : "#fff");

/** How a reading is coloured: one palette and one sign each, blank where the number means nothing. */
function scaleOf(reading, values, theme, wide = null) {
  const { paper, [reading]: hues } = PALETTES[theme];
  const gates = wide && reading === "weight";
  const share = reading === "weight" || reading === "contribution";
  const largest = Math.max(0, ...values.flat().filter(known).map(Math.abs));
  const present = Math.max(0, ...values.map((row) => row.filter((x) => x !== null).length));
  const middle = share && !gates ? 1 / (present || 4) : 0;
  const ends = share && !gates ? [1, 2] : [0.1, 0.25, 0.5, 1];
  const end = ends.find((e) => e > middle && largest <= e + 1e-9) ?? largest;
  const low = share ? 0 : -end;
  const colour = (x) => mixed([paper, hues[x < middle ? 1 : 0]], x < middle ? (middle - x) / (middle - low) : (x - middle) / (end - middle || 1));
  return { end, low, middle, colour, signed: !share, gates };
}

function themeOf(root) {
  const found = getComputedStyle(root).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [255, 255, 255];
  return luminance(found.slice(0, 3)) < 0.25 ? "dark" : "light";
}

// ---------------------------------------------------------------- small plots

/** A dot with its interval on a line with a mark at zero; `band` is the same at random. */
function dotPlot({ value, low, high, band, zero = 0, domain, words, control = false }) {
  const [from, to] = domain;
  const x = (v) => 4 + (112 * (clamp(v, from, to) - from)) / (to - from || 1);
  const parts = [svg("line", { x1: 4, x2: 116, y1: 9, y2: 9, class: "axis" })];
  if (band) parts.push(svg("rect", { x: x(band.low), width: Math.max(2, x(band.high) - x(band.low)), y: 4, height: 10, class: "band" }));
  if (band) parts.push(svg("line", { x1: x(band.mean), x2: x(band.mean), y1: 3, y2: 15, class: "mean" }));
  parts.push(svg("line", { x1: x(zero), x2: x(zero), y1: 1, y2: 17, class: "zero" }));
  if (known(low) && known(high)) parts.push(svg("line", { x1: x(low), x2: x(high), y1: 9, y2: 9, class: control ? "interval control" : "interval" }));
  if (known(value)) parts.push(svg("circle", { cx: x(value), cy: 9, r: 4, class: control ? "dot control" : "dot" }));
  return svg("svg", { viewBox: "0 0 120 18", class: "dot-plot", role: "img", "aria-label": words }, parts);
}

function domainOf(rows, zero = 0) {
  const all = rows.flatMap((row) => [row.value, row.low, row.high]).filter(known);
  const reach = [...all, zero];
  const low = Math.min(...reach);
  const high = Math.max(...reach);
  const pad = (high - low || 1) * 0.08;
  return [low - pad, high + pad];
}

function controlWords(control) {
  return control && known(control.mean)
    ? `the same at random ${signed(control.mean)} [${signed(control.low)}, ${signed(control.high)}], n = ${control.n}`
    : "no random control yet";
}

// ---------------------------------------------------------------- frames, maps, player

/** In which order the frames of a scene are shown under a change. */
function orderOf(scene, frames, shuffled) {
  const usual = scene.frames.map((_, t) => t);
  if (frames === "reversed") return usual.reverse();
  if (frames === "frozen") return usual.fill(0);
  if (frames === "shuffled" && shuffled?.length === usual.length) return shuffled;
  return usual;
}

/** Pictures of a scene, decoded once; the oldest leave. */
function makeAlbum(most = 6) {
  const kept = new Map();
  return ({ frames }, ready) => {
    if (!kept.has(frames)) {
      const images = frames.map((source) => {
        const image = new Image();
        image.addEventListener("load", () => images.ready.forEach((call) => call()), { once: true });
        image.src = String(source).startsWith("data:image/") ? source : "";
        return image;
      });
      images.ready = new Set();
      kept.set(frames, images);
      if (kept.size > most) kept.delete(kept.keys().next().value);
    }
    const images = kept.get(frames);
    images.ready.add(ready);
    return images;
  };
}

/** Numbers as they travel: base64 of little-endian float32. */
function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, k) => view.getFloat32(4 * k, true));
}

/** One target of a map as layers to draw: colours are made once for every frame and scale. */
function mapLayers(map, target) {
  const [T, height, width] = map.shape;
  const told = map.targets[target];
  const values = floats(told.values);
  const frame = (t) => values.subarray(t * height * width, (t + 1) * height * width);
  const top = (some) => some.reduce((a, b) => (b > a ? b : a), 0);
  const tops = Array.from({ length: T }, (_, t) => top(frame(t)));
  const made = new Map();
  const topOf = (t, scale) => (scale === "frame" ? tops[t] : scale === "shared" ? map.top : Math.max(...tops));
  const layer = (t, scale) => {
    const key = `${t} ${scale}`;
    if (!made.has(key)) {
      const canvas = h("canvas", { width, height });
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(width, height);
      const end = topOf(t, scale);
      frame(t).forEach((value, k) => {
        const share = end > 0 ? clamp(value / end, 0, 1) : 0;
        pixels.data.set([...mixed(INFERNO, share), Math.round(255 * Math.min(1, share * 1.5) ** 0.7)], 4 * k);
      });
      context.putImageData(pixels, 0, 0);
      made.set(key, canvas);
    }
    return made.get(key);
  };
  return { layer, topOf, negative: !(told.high > 0), low: told.low, high: told.high, note: told.note, T };
}

function fitted(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, hgt] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== hgt) Object.assign(canvas, { width: w, height: hgt });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.imageSmoothingQuality = "high";
  return [context, w, hgt];
}

function paint(context, image, box, overlay, opacity, blur) {
  const [x, y, w, hgt] = box;
  if (!image?.complete || !image.naturalWidth) return;
  context.filter = blur ? `blur(${(blur * w).toFixed(1)}px)` : "none";
  context.drawImage(image, x, y, w, hgt);
  context.filter = "none";
  if (!overlay) return;
  context.globalAlpha = opacity;
  context.drawImage(overlay, x, y, w, hgt);
  context.globalAlpha = 1;
}

/** The position in the clip; one clock for all canvases, still when nobody can see it. */
function makePlayer(cleanup) {
  const listeners = new Set();
  const calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches;
  const player = { at: 0, playing: !calm, T: 1, pause: 160, seen: true, listeners };
  let timer = 0;
  const tell = () => listeners.forEach((call) => call());
  const tick = () => {
    player.at = (player.at + 1) % player.T;
    tell();
    run();
  };
  const run = () => {
    clearTimeout(timer);
    const moves = player.playing && player.seen && !document.hidden && player.T > 1;
    if (moves) timer = setTimeout(tick, player.pause * (player.at === player.T - 1 ? 2 : 1));
  };
  player.run = run;
  player.show = (at, playing = player.playing) => {
    player.playing = playing;
    player.at = clamp(Math.round(at), 0, player.T - 1);
    tell();
    run();
  };
  player.play = (on = !player.playing) => {
    player.playing = on;
    tell();
    run();
  };
  player.clip = (scene) => {
    player.T = scene.frames.length;
    const steps = (scene.times_s ?? []).slice(1).map((t, k) => t - scene.times_s[k]).sort((a, b) => a - b);
    player.pause = clamp(1000 * (steps[Math.floor(steps.length / 2)] || 0.16), 80, 420);
    player.show(Math.min(player.at, player.T - 1));
  };
  document.addEventListener("visibilitychange", run);
  cleanup.push(() => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
  });
  return player;
}

// ---------------------------------------------------------------- what the regions share

/** Everything a region needs: the store, when to draw again, and what can be done. */
function makeContext(root, store, cleanup) {
  const dirty = new Set();
  let due = 0;
  const flush = () => {
    due = 0;
    for (const draw of [...dirty]) {
      dirty.delete(draw);
      draw();
    }
  };
  const mark = (draw) => {
    dirty.add(draw);
    due ||= requestAnimationFrame(flush);
  };
  const ctx = { root, store, cleanup, player: makePlayer(cleanup), album: makeAlbum(), thumbs: new Map(), theme: "light", undone: [] };
  ctx.watch = (names, draw) => {
    const again = () => mark(draw);
    names.forEach((name) => cleanup.push(name === "theme" ? onTheme(ctx, again) : store.on(name, again)));
    draw();
    return again;
  };
  cleanup.push(() => cancelAnimationFrame(due));
  ctx.themes = new Set();
  ctx.about = () => store.get("about");
  let merged = null;
  ctx.scene = () => {
    const [scene, more] = [store.get("scene"), store.get("progress")];
    if (!scene || scene.clip !== store.get("selected")) return null;
    if (!more || more.clip !== scene.clip) return scene;
    if (merged?.scene !== scene || merged.more !== more) merged = { scene, more, whole: { ...scene, ...more } };
    return merged.whole;
  };
  ctx.className = (k) => ctx.about().network.classes[k] ?? "–";
  ctx.look = () => ({ opacity: 0.6, scale: "clip", target: null, ...store.get("look") });
  ctx.tell = (message, buffers) => {
    try {
      store.send(message, buffers);
    } catch {
      ctx.setAlive(false);
    }
  };
  ctx.put = (name, value) => {
    store.set(name, value);
    store.save();
  };
  ctx.setLook = (change) => ctx.put("look", { ...store.get("look"), ...change });
  ctx.term = (word) => ctx.about().glossary?.[word] ?? "";
  addActions(ctx);
  return ctx;
}

function onTheme(ctx, call) {
  ctx.themes.add(call);
  return () => ctx.themes.delete(call);
}

function addActions(ctx) {
  const { store } = ctx;
  ctx.setEdits = (edits) => ctx.put("edits", edits);
  ctx.edit = (edit, edits = withEdit(store.get("edits"), edit)) => {
    ctx.undone = [];
    ctx.setEdits(edits);
  };
  ctx.undo = () => {
    const edits = store.get("edits");
    if (edits.length) ctx.undone.push(edits.at(-1));
    ctx.setEdits(edits.slice(0, -1));
  };
  ctx.redo = () => {
    const edit = ctx.undone.pop();
    if (edit) ctx.setEdits([...store.get("edits"), edit]);
  };
  ctx.select = (id) => {
    if (id !== store.get("selected")) ctx.put("selected", id);
  };
  ctx.step = (by) => {
    const ids = fitting(ctx).map((clip) => clip.id);
    const at = ids.indexOf(store.get("selected"));
    if (ids.length) ctx.select(ids[(at + by + ids.length) % ids.length]);
  };
  ctx.answer = (edits = store.get("edits")) => {
    const answers = store.get("answers");
    const scene = ctx.scene();
    if (!scene) return null;
    if (!edits.length) return { probabilities: scene.probabilities, change: 0, control: null };
    return (answers?.clip ?? scene.clip) === scene.clip ? answers?.items?.[editsKey(edits)] ?? null : null;
  };
}

const NO_STATUS = { state: "ready", where: "", message: "" };

/** What the kernel says about a region, drawn in that region: busy, error or offline. */
function notice(ctx, ...where) {
  const box = h("div", { class: "notice", hidden: true });
  ctx.watch(["status"], () => {
    const status = ctx.store.get("status") ?? NO_STATUS;
    box.hidden = status.state === "ready" || !where.includes(status.where);
    if (box.hidden) return;
    box.dataset.state = status.state;
    box.setAttribute("role", status.state === "error" ? "alert" : "status");
    const busy = status.state === "busy";
    fill(
      box,
      h("span", { class: "said" }, status.message || (busy ? "Working" : "")),
      status.remedy ? h("span", { class: "remedy" }, status.remedy) : null,
      busy && status.total ? progress(status) : null,
      busy ? button("Cancel", () => ctx.tell({ ask: "cancel" }), { "data-key": "cancel", tip: "Stop this; what is measured stays." }) : null,
      status.state === "error" ? button("Close", () => ctx.store.set("status", NO_STATUS), { "data-key": "close", "aria-label": "Close this message" }) : null,
    );
  });
  return box;
}

function progress({ done, total, left_s: seconds }) {
  const words = `${done} of ${total}${known(seconds) ? `, ${left(seconds)}` : ""}`;
  return h("span", { class: "counted" }, h("progress", { max: total, value: done, "aria-label": words }), h("span", {}, words));
}

/** One of several: buttons of which one is pressed. */
function segments(words, names, act, shown = (name) => name, tip = () => null) {
  const buttons = names.map((name) => button(shown(name), () => act(name), { "data-name": name, "aria-pressed": "false", tip: tip(name) }));
  const group = h("div", { class: "segments", role: "group", "aria-label": words }, buttons);
  group.show = (name) => buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.name === String(name))));
  return group;
}

function choice(words, tip, act) {
  const box = h("select", { "aria-label": words, tip, onchange: () => act(box.value) });
  box.show = (options, value) => {
    const told = JSON.stringify(options);
    if (box.dataset.told !== told) fill(box, options.map(([key, shown]) => h("option", { value: key }, shown)));
    box.dataset.told = told;
    box.value = String(value);
  };
  return box;
}

function region(name, title, ...children) {
  const id = `sda-h-${(serial += 1)}`;
  return h("section", { class: `region ${name}`, "aria-labelledby": id, "data-region": name }, h("h2", { id }, title), children);
}

// ---------------------------------------------------------------- head: which clip, what else there is, the finding

function headView(ctx) {
  const { store } = ctx;
  const name = h("h1", {});
  const facts = h("span", { class: "facts" });
  const verdict = h("span", { class: "verdict" });
  const offline = h("div", { class: "notice offline", role: "alert", hidden: true }, h("span", { class: "said" }, "The kernel is away. What is shown still holds; run the cell again to ask for more."));
  const open = (part, words, tip) => button(words, () => ctx.open(part), { tip, "aria-expanded": "false", "data-open": part });
  const panels = [
    open("beside", "Compare", "Two clips, two networks, or a clip and its reverse, side by side."),
    open("questions", "Questions", "How far these pictures can be believed, measured on your clips."),
  ];
  ctx.setAlive = (alive) => (offline.hidden = alive);
  ctx.cleanup.push(store.on("alive", ctx.setAlive));
  ctx.watch(["scene", "progress", "selected", "about", "clips"], () => {
    const scene = ctx.scene();
    const row = (store.get("clips") ?? []).find((clip) => clip.id === store.get("selected"));
    text(name, scene?.name ?? row?.name ?? store.get("selected") ?? "No clip is chosen");
    const { network } = ctx.about();
    text(facts, [scene?.facts, `${network.name}, ${network.num_frames} frames, ${(network.parameters / 1e6).toFixed(1)} M parameters`].filter(Boolean).join(" · "));
    tips.set(facts, [network.name, network.trained_on, network.note].filter(Boolean));
    if (!scene) return verdict.replaceChildren();
    const right = scene.label === null ? null : scene.predicted === scene.label;
    verdict.dataset.right = String(right);
    text(verdict, right === null ? "true class not known" : right ? "✓ right" : `✗ wrong: it is “${ctx.className(scene.label)}”`);
  });
  ctx.watch(["look", "about"], () => {
    panels.forEach((one) => one.setAttribute("aria-expanded", String(ctx.look().open === one.dataset.open)));
    panels[1].hidden = !ctx.about().questions?.length;
  });
  return h(
    "header",
    {},
    h("div", { class: "pager" }, button("‹", () => ctx.step(-1), { "aria-label": "Previous clip", tip: "Previous clip that fits the filters (key [)" }), button("›", () => ctx.step(1), { "aria-label": "Next clip", tip: "Next clip that fits the filters (key ])" })),
    name,
    verdict,
    facts,
    h("nav", { "aria-label": "More" }, panels, keepMenu(ctx), helpButton(ctx)),
    offline,
    notice(ctx, "keep"),
  );
}

function findingView(ctx) {
  const sentence = h("p", { class: "sentence" });
  const plot = h("div", { class: "finding-plot" });
  const show = button("Show it", () => ctx.setEdits(ctx.scene().finding.edits), { tip: "Make this change, and see the answer move." });
  ctx.watch(["scene", "progress", "answers", "selected"], () => {
    const scene = ctx.scene();
    const answers = ctx.store.get("answers");
    const found = scene?.finding ?? null;
    show.hidden = !found?.edits;
    if (!found) {
      const waits = scene && ctx.about().live && answers?.total > (answers?.done ?? 0);
      const none = ctx.about().network.blocks.length ? "" : ctx.about().network.note;
      text(sentence, waits ? "Measuring what this answer rests on." : scene ? none || "What this answer rests on is not measured." : "Reading the clip.");
      return fill(plot, waits ? progress(answers) : null);
    }
    text(sentence, found.sentence);
    const rows = [{ value: found.value, ...found.control }];
    const words = `change ${signed(found.value)}; ${controlWords(found.control)}`;
    tips.set(plot, ["What the change costs (dot), and the same at random (band)", words, ctx.term("control")]);
    fill(plot, dotPlot({ value: found.value, band: found.control, domain: domainOf([...rows, { value: -1 }]), words }), h("span", { class: "axis-words" }, "change of the probability"));
  });
  return h("div", { class: "finding", "data-region": "finding" }, sentence, plot, show);
}

function keepMenu(ctx) {
  const live = () => ctx.about().live;
  const items = [
    ["png", "Picture (PNG, twice the pixels)", () => live()],
    ["svg", "Drawing (SVG)", () => live()],
    ["page", "Recorded page of this state", () => live()],
    ["frame", "This frame with its map (PNG)", () => true],
    ["state", "State (JSON)", () => true],
    ["code", "Copy the code that makes this again", () => live() || ctx.store.get("code")],
    ["address", "Copy the address of this state", () => !live()],
  ];
  const menu = h("div", { role: "menu", class: "menu", hidden: true, "aria-label": "Keep" });
  const opener = button("Keep", () => toggle(menu.hidden), { "aria-haspopup": "menu", "aria-expanded": "false", tip: "Downloads of what you see, and code that makes it again; no file is written next to your notebook." });
  const toggle = (on) => {
    menu.hidden = !on;
    opener.setAttribute("aria-expanded", String(on));
    if (!on) return;
    fill(menu, items.filter((item) => item[2]()).map(([what, words]) => h("button", { type: "button", role: "menuitem", "data-key": what, onclick: () => keep(what) }, words)));
    menu.firstElementChild?.focus();
  };
  const keep = (what) => {
    toggle(false);
    opener.focus();
    const { store } = ctx;
    if (what === "frame") return ctx.canvas.toBlob((blob) => download(blob, `${ctx.scene()?.name ?? "clip"}-frame-${ctx.player.at}.png`));
    if (what === "address") return copy(ctx, location.href);
    if (live()) return ctx.tell({ ask: "keep", what });
    if (what === "code") return copy(ctx, store.get("code"));
    const state = Object.fromEntries(["selected", "edits", "reading", "beside", "filters", "look"].map((n) => [n, store.get(n)]));
    download(new Blob([JSON.stringify(state, null, 1)], { type: "application/json" }), "inspector.json");
  };
  ctx.cleanup.push(
    ctx.store.on("message", (message, buffers) => {
      if (!message?.kept) return;
      if (message.kept === "code") return copy(ctx, message.text);
      download(new Blob([message.text ?? buffers[0]], { type: message.mime }), message.name);
    }),
  );
  menu.addEventListener("keydown", (event) => {
    const all = [...menu.children];
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) all[(all.indexOf(menu.getRootNode().activeElement) + by + all.length) % all.length].focus();
    if (event.key === "Escape") opener.focus();
    if (event.key === "Escape" || event.key === "Tab") toggle(false);
    if (by) event.preventDefault();
  });
  ctx.root.addEventListener("pointerdown", (event) => !menu.hidden && !menu.contains(event.target) && event.target !== opener && toggle(false));
  return h("div", { class: "holds-menu" }, opener, menu);
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function copy(ctx, words) {
  const done = () => ctx.say("Copied to the clipboard.");
  const byHand = () => {
    const box = h("textarea", { readonly: true, class: "copied" });
    box.value = words;
    ctx.dialog("Copy this", [h("p", {}, "This browser keeps pages from the clipboard: copy the marked text."), box]);
    box.select();
  };
  if (!navigator.clipboard) return byHand();
  navigator.clipboard.writeText(words).then(done, byHand);
}

const KEYS = [
  ["Space", "play or pause"], ["← →", "frame before, frame after (on the clip)"], ["[ ]", "clip before, clip after"],
  ["r s f b", "reverse, shuffle, freeze, blur"], ["w c l", "table: weight, contribution, loss"], ["u, Shift+u", "undo, redo"],
  ["arrows in the table", "from cell to cell"], ["Enter", "leave out, or open what is closed; on a column head everywhere; on a row head uniform weights"],
  ["Shift+Enter", "keep only this"], ["+ −", "more, less weight"], ["m", "map on or off"], ["Escape", "close what is open"],
];

function helpButton(ctx) {
  const words = () => {
    const terms = Object.entries(ctx.about().glossary ?? {}).flatMap(([word, said]) => [h("dt", {}, word), h("dd", {}, said)]);
    const keys = KEYS.flatMap(([key, said]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, said)]);
    return [h("h3", {}, "Keys"), h("dl", {}, keys), h("h3", {}, "Words"), h("dl", {}, terms)];
  };
  ctx.help = () => ctx.dialog("Keys and words", words());
  return button("?", ctx.help, { "aria-label": "Keys and words", tip: "All keys, and every word explained (key ?)" });
}

function dialogView(ctx) {
  const title = h("h2", { id: `sda-h-${(serial += 1)}` });
  const body = h("div", { class: "dialog-body", tabindex: "0" });
  const close = button("Close", () => box.close());
  const box = h("dialog", { "aria-labelledby": title.id }, h("div", { class: "dialog-head" }, title, close), body);
  ctx.dialog = (words, parts) => {
    text(title, words);
    fill(body, parts);
    box.showModal();
    close.focus();
  };
  return box;
}

// ---------------------------------------------------------------- the clip: canvas, scrubber, strip, frames, map

/** A canvas that shows a scene at the player's position; A with its map. */
function stage(ctx, sceneOf, overlay, words) {
  const canvas = h("canvas", { class: "stage", role: "img", "aria-label": words });
  const draw = () => {
    const scene = sceneOf();
    const width = canvas.clientWidth;
    if (!width) return;
    const [context, w, hgt] = fitted(canvas, width, canvas.clientHeight);
    context.clearRect(0, 0, w, hgt);
    if (!scene?.frames.length) return;
    const edits = scene === ctx.scene() ? ctx.store.get("edits") : [];
    const t = frameAt(ctx, scene, edits);
    const image = ctx.album(scene, draw)[t];
    const size = image.naturalWidth ? Math.min(w / image.naturalWidth, hgt / image.naturalHeight) : 0;
    const box = [(w - size * image.naturalWidth) / 2, (hgt - size * image.naturalHeight) / 2, size * image.naturalWidth, size * image.naturalHeight];
    paint(context, image, box, overlay(t), ctx.look().opacity, isBlurred(edits) ? 0.03 : 0);
  };
  ctx.player.listeners.add(draw);
  const sized = new ResizeObserver(draw);
  sized.observe(canvas);
  ctx.cleanup.push(() => sized.disconnect());
  return [canvas, draw];
}

const isBlurred = (edits) => edits.some((edit) => edit.kind === "frames" && edit.value === "blurred");

function orderNow(ctx, scene, edits) {
  const moved = edits.find((edit) => edit.kind === "frames" && edit.value !== "blurred");
  return orderOf(scene, moved?.value, scene.shuffled ?? ctx.about().network.shuffled);
}

function frameAt(ctx, scene, edits) {
  const order = orderNow(ctx, scene, edits);
  return order[Math.min(ctx.player.at, order.length - 1)];
}

/** The layers of the map that is shown over a scene; null while there is none. */
function mapReader(ctx, name, sceneOf) {
  let made = {};
  return () => {
    const map = ctx.store.get(name);
    const scene = sceneOf();
    const target = map && scene ? targetNow(ctx, map, scene) : null;
    if (target === null || map.clip !== scene.clip) return null;
    if (made.map !== map || made.target !== target) made = { map, target, layers: mapLayers(map, target) };
    return made.layers;
  };
}

function overlayOf(ctx, mapNow) {
  return (t) => {
    const map = mapNow();
    return map && !map.negative ? map.layer(Math.min(t, map.T - 1), ctx.look().scale) : null;
  };
}

function clipView(ctx) {
  const { store, player } = ctx;
  ctx.mapNow = mapReader(ctx, "map", ctx.scene);
  const overlay = overlayOf(ctx, ctx.mapNow);
  const [canvas, draw] = stage(ctx, ctx.scene, overlay, "The clip as the network gets it");
  ctx.canvas = canvas;
  canvas.addEventListener("click", () => player.play());
  const scrub = h("input", { type: "range", class: "scrub", min: 0, step: 1, "aria-label": "Frame", tip: "Which frame is shown (keys ← →)", oninput: () => player.show(Number(scrub.value), false) });
  const strip = h("canvas", { class: "strip", "aria-hidden": "true" });
  const drawStrip = () => stripDraw(ctx, strip, overlay, drawStrip);
  strip.addEventListener("pointerdown", (event) => {
    player.show(Math.floor((event.offsetX / strip.clientWidth) * player.T), false);
  });
  const play = button("", () => player.play(), { class: "play", tip: "Play or pause (key Space)" });
  const time = h("span", { class: "time" });
  const changes = Object.entries(FRAMES).map(([value, words]) => button(words, () => ctx.edit(makeEdit("frames", null, null, value)), { "aria-pressed": "false", "data-value": value, tip: () => [words, ctx.term(value), `key ${words[0].toLowerCase()}`] }));
  const moved = () => {
    const scene = ctx.scene();
    text(play, player.playing ? "❚❚" : "►");
    play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    scrub.value = String(player.at);
    const t = scene ? frameAt(ctx, scene, store.get("edits")) : 0;
    const when = known(scene?.times_s?.[t]) ? `${scene.times_s[t].toFixed(2)} s` : "";
    text(time, scene ? [`frame ${scene.numbers?.[t] ?? t}`, when].filter(Boolean).join(", ") : "");
    scrub.setAttribute("aria-valuetext", time.textContent);
    drawStrip();
  };
  player.listeners.add(moved);
  const sized = new ResizeObserver(drawStrip);
  sized.observe(strip);
  ctx.cleanup.push(() => sized.disconnect());
  ctx.watch(["scene", "selected"], () => {
    const scene = ctx.scene();
    if (scene) player.clip(scene);
    scrub.max = String(player.T - 1);
    draw();
  });
  ctx.watch(["edits", "map", "look", "theme"], () => {
    const values = store.get("edits").filter((edit) => edit.kind === "frames").map((edit) => edit.value);
    changes.forEach((one) => one.setAttribute("aria-pressed", String(values.includes(one.dataset.value))));
    draw();
    moved();
  });
  const [onOff, map] = mapView(ctx);
  const frames = h("div", { class: "segments", role: "group", "aria-label": "Change the frames" }, changes);
  return region("clip", "Clip", h("div", { class: "row above" }, time), canvas, scrub, strip, h("div", { class: "row" }, play, frames, onOff), map, notice(ctx, "scene", "map"));
}

function stripDraw(ctx, canvas, overlay, again) {
  const scene = ctx.scene();
  if (!canvas.clientWidth) return;
  const [context, w, hgt] = fitted(canvas, canvas.clientWidth, canvas.clientHeight);
  context.clearRect(0, 0, w, hgt);
  if (!scene) return;
  const edits = ctx.store.get("edits");
  const order = orderNow(ctx, scene, edits);
  const images = ctx.album(scene, again);
  const gap = 2 * (window.devicePixelRatio || 1);
  const each = (w - gap * (order.length - 1)) / order.length;
  order.forEach((t, k) => {
    const box = [k * (each + gap), 0, each, hgt];
    context.save();
    context.beginPath();
    context.rect(...box);
    context.clip();
    const image = images[t];
    const size = image.naturalWidth ? Math.max(each / image.naturalWidth, hgt / image.naturalHeight) : 1;
    const [iw, ih] = [image.naturalWidth * size, image.naturalHeight * size];
    paint(context, image, [box[0] + (each - iw) / 2, (hgt - ih) / 2, iw, ih], overlay(t), ctx.look().opacity, isBlurred(edits) ? 0.03 : 0);
    context.restore();
    if (k !== ctx.player.at) return;
    context.lineWidth = 2 * gap;
    context.strokeStyle = getComputedStyle(ctx.root).getPropertyValue("--accent");
    context.strokeRect(box[0] + gap, gap, each - 2 * gap, hgt - 2 * gap);
  });
}

function targetNow(ctx, map, scene) {
  const wanted = String(ctx.look().target ?? scene.predicted);
  if (wanted in map.targets) return wanted;
  return Object.keys(map.targets)[0] ?? null;
}

function mapView(ctx) {
  const { store } = ctx;
  const about = ctx.about();
  const layers = () => (ctx.look().method === "gate" ? about.network.blocks.map((name) => ({ name, words: name })) : about.layers ?? []);
  const pick = () => {
    const methods = about.methods ?? [];
    const look = ctx.look();
    const method = [look.method, about.method].find((name) => methods.includes(name)) ?? methods[0];
    const names = layers().map((layer) => layer.name);
    const layer = [look.layer, about.layer].find((name) => names.includes(name)) ?? names[Math.floor(names.length / 2)];
    const target = look.target ?? ctx.scene()?.predicted ?? null;
    return { layer, method, target: target === null || target === "difference" ? target : Number(target) };
  };
  const ask = () => ctx.tell({ ask: "map", ...pick() });
  ctx.toggleMap = () => {
    const on = !ctx.look().map;
    ctx.setLook({ map: on });
    if (on) return ask();
    return ctx.tell({ ask: "map", layer: null });
  };
  const onOff = button("Map", ctx.toggleMap, { "aria-pressed": "false", tip: () => ["Map", ctx.term("map"), "key m"] });
  const set = (change) => {
    ctx.setLook(change);
    ask();
  };
  const layer = choice("Layer of the map", "From which layer the map comes: later ones are coarser.", (name) => set({ layer: name }));
  const method = choice("Method of the map", "How the map is made; gate shows what a block lets through.", (name) => set({ method: name, layer: null }));
  const target = choice("Class of the map", "For which class the map shows the evidence.", (key) => {
    ctx.setLook({ target: key });
    if (!(key in (store.get("map")?.targets ?? {}))) ask();
  });
  const scale = segments("Scale of the map", ["frame", "clip", "shared"], (name) => ctx.setLook({ scale: name }), undefined, (name) => ({ frame: "Every frame has its own scale.", clip: "One scale for the whole clip.", shared: "One scale for A and B, and for all classes." })[name]);
  const opacity = h("input", { type: "range", min: 0, max: 1, step: 0.05, "aria-label": "Opacity of the map", tip: "How strongly the map covers the frame.", oninput: () => ctx.setLook({ opacity: Number(opacity.value) }) });
  const bar = h("div", { class: "colour-bar" });
  const low = h("span", {});
  const high = h("span", {});
  const note = h("span", { class: "map-note" });
  const more = h("div", { class: "map-more", hidden: true }, h("div", { class: "row" }, method, layer, target), h("div", { class: "row" }, scale, opacity), h("div", { class: "row range" }, low, bar, high), note);
  bar.style.background = `linear-gradient(to right, ${INFERNO.map(css).join(", ")})`;
  ctx.watch(["map", "look", "scene", "about"], () => {
    const look = ctx.look();
    const map = ctx.mapNow();
    onOff.setAttribute("aria-pressed", String(Boolean(look.map)));
    onOff.disabled = !(about.methods ?? []).length;
    more.hidden = !look.map;
    const now = pick();
    method.show((about.methods ?? []).map((m) => [m, m]), now.method);
    layer.show(layers().map((one) => [one.name, one.words ?? one.name]), now.layer);
    const scene = ctx.scene();
    const classes = [...(scene?.top ?? []).map((one) => [String(one.class), ctx.className(one.class)]), ["difference", "difference of the best two"]];
    const held = store.get("map")?.targets ?? {};
    target.show(about.live ? classes : classes.filter(([key]) => key in held), map ? targetNow(ctx, store.get("map"), scene) : now.target);
    scale.show(look.scale);
    opacity.value = String(look.opacity);
    text(low, map ? raw(map.low) : "");
    text(high, map ? raw(map.high) : "");
    tips.set(bar, map ? [`raw values from ${raw(map.low)} to ${raw(map.high)}`, "Colours begin at 0: what speaks against the class is left clear."] : null);
    text(note, !map ? (about.live ? "The map is on its way." : "This page does not hold a map for this choice.") : map.negative ? "The map is negative everywhere: nothing here speaks for this class." : map.note ?? "");
  });
  ctx.watch(["selected"], () => ctx.look().map && !store.get("map") && ask());
  return [onOff, more];
}

// ---------------------------------------------------------------- the answer: bars with the ghost of before, the log

function answerView(ctx) {
  const { store } = ctx;
  const list = h("ol", { class: "bars" });
  const rows = Array.from({ length: 6 }, () => {
    const name = h("span", { class: "bar-name" });
    const tag = h("span", { class: "tag" }, "true class");
    const ghost = h("span", { class: "ghost" });
    const bar = h("span", { class: "bar" });
    const value = h("span", { class: "bar-value" });
    const row = h("li", {}, h("span", { class: "bar-words" }, name, tag), h("span", { class: "track" }, bar, ghost), value);
    list.append(row);
    return { row, name, tag, ghost, bar, value };
  });
  const state = h("p", { class: "bar-state" });
  ctx.watch(["scene", "progress", "selected", "edits", "answers"], () => {
    const scene = ctx.scene();
    const edits = store.get("edits");
    const answer = ctx.answer();
    const after = answer?.probabilities ?? null;
    list.dataset.state = !scene ? "empty" : after ? "known" : ctx.about().live ? "waiting" : "missing";
    list.dataset.key = after ? editsKey(edits) : "";
    const said = { waiting: "Asking the network.", missing: `Not recorded. This page holds ${ctx.about().recorded ?? "every single change"}. Undo a step, or open the clip live.` };
    text(state, said[list.dataset.state] ?? "");
    const shown = scene ? barClasses(scene, after) : [];
    const winner = after ? after.indexOf(Math.max(...after)) : -1;
    rows.forEach((one, k) => {
      one.row.hidden = k >= shown.length;
      if (one.row.hidden) return;
      const cls = shown[k];
      const [before, now] = [scene.probabilities[cls], after?.[cls] ?? null];
      text(one.name, ctx.className(cls));
      one.tag.hidden = cls !== scene.label;
      one.row.className = [cls === scene.label ? "is-true" : "", cls === winner ? "is-answer" : ""].join(" ");
      one.bar.style.width = `${100 * (now ?? 0)}%`;
      one.ghost.style.width = `${100 * before}%`;
      one.ghost.hidden = !edits.length;
      text(one.value, now === null ? "…" : number(now));
      tips.set(one.row, [ctx.className(cls), edits.length && now !== null ? `${number(before, 3)} before, ${number(now, 3)} now` : `probability ${number(before, 3)}`, cls === scene.label ? "the true class of this clip" : null]);
    });
    if (answer && edits.length) ctx.say(`${editWords(edits.at(-1), ctx.about())}: ${ctx.className(winner)}, ${number(after[winner])}`);
  });
  return region("answer", "Answer", list, state, logView(ctx));
}

/** The classes that have a bar: the best before or after, always the true one, in the order of before. */
function barClasses(scene, after) {
  const p = scene.probabilities;
  const best = p.map((x, k) => [k, after ? Math.max(x, after[k] ?? 0) : x]).sort((a, b) => b[1] - a[1]).slice(0, 5).map((one) => one[0]);
  if (scene.label !== null && !best.includes(scene.label)) best[4] = scene.label;
  return best.sort((a, b) => p[b] - p[a]);
}

function logView(ctx) {
  const list = h("ol", { class: "log", "aria-label": "Steps" });
  const undo = button("Undo", ctx.undo, { tip: "Take the last step back (key u)" });
  const redo = button("Redo", ctx.redo, { tip: "Make it again (key Shift+u)" });
  const reset = button("Reset", () => ctx.setEdits([]), { tip: "Back to the network as it is." });
  const empty = h("p", { class: "empty" }, "Click a cell of the table: that dependency is left out there, and the bars move. Each step becomes a line here, with the same change at random.");
  const draw = () => {
    const edits = ctx.store.get("edits");
    const scene = ctx.scene();
    undo.disabled = !edits.length;
    reset.disabled = !edits.length;
    redo.disabled = !ctx.undone.length;
    empty.hidden = edits.length > 0;
    list.hidden = !edits.length;
    fill(list, edits.map((edit, k) => logLine(ctx, scene, edits, k)).reverse());
  };
  ctx.watch(["scene", "progress", "edits", "answers"], draw);
  return h("div", { class: "log-box" }, h("div", { class: "row" }, h("h3", {}, "Steps"), undo, redo, reset), empty, list);
}

function logLine(ctx, scene, edits, k) {
  const words = editWords(edits[k], ctx.about());
  const answer = ctx.answer(edits.slice(0, k + 1));
  const remove = button("×", () => ctx.setEdits(edits.filter((_, j) => j !== k)), { "aria-label": `Take back: ${words}`, "data-key": `step ${k}`, tip: "Take this step back." });
  if (!answer || !scene) return h("li", {}, remove, h("span", { class: "log-words" }, k ? `and ${words}` : words), h("span", { class: "log-number" }, "…"));
  const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
  const { control, change } = answer;
  const stands = control && known(control.low) ? (change < control.low || change > control.high ? "outside the range of chance" : "inside the range of chance") : "";
  const plot = dotPlot({ value: change, band: control && known(control.low) ? control : null, domain: [-1, Math.max(0.1, change, control?.high ?? 0)], words: `change ${signed(change)}; ${controlWords(control)}` });
  const line = h(
    "li", {}, remove,
    h("span", { class: "log-words" }, k ? `and ${words}` : words, h("small", {}, `${ctx.className(best)} ${number(answer.probabilities[best])}`)),
    h("span", { class: "log-number" }, signed(change)), plot,
    h("small", { class: "log-control" }, control && known(control.mean) ? `random ${signed(control.mean)} [${signed(control.low)}, ${signed(control.high)}]` : "no control yet"),
  );
  tips.set(line, [words, `the probability of ${ctx.className(scene.read)} changes by ${signed(change, 3)}`, controlWords(control), stands]);
  return line;
}

// ---------------------------------------------------------------- the selection: blocks × dependencies

function selectionView(ctx) {
  const { store } = ctx;
  const { blocks, dependencies } = ctx.about().network;
  const reading = segments("What the table shows", READINGS, (name) => ctx.put("reading", name), (name) => name, (name) => () => [name, ctx.term(name), `key ${name[0]}`]);
  if (!blocks.length) return region("selection", "Selection", h("p", { class: "empty" }, ctx.about().network.note || "This network has no SDA blocks: there is no selection to show."));
  const heads = dependencies.map((name, m) => h("th", { scope: "col", role: "columnheader", tabindex: -1, "data-dep": name, "aria-selected": "false", tip: () => [name, ctx.term(name), "Click: left out everywhere. Shift-click: keep only it."], "data-at": `-1 ${m}` }, name));
  const corner = h("td", { role: "gridcell" }, h("span", { class: "unseen" }, "block"));
  const cells = blocks.map((_, p) => dependencies.map((_, m) => h("td", { role: "gridcell", tabindex: -1, "data-at": `${p} ${m}`, tip: () => cellWords(ctx, p, m) }, h("span", {}))));
  const rowHeads = blocks.map((name, p) => h("th", { scope: "row", role: "rowheader", tabindex: -1, "aria-selected": "false", "data-at": `${p} -1`, tip: () => [name, ctx.about().network.wide ? "Click: every gate of this block wide open." : "Click: the same weight for every dependency of this block."] }, name));
  const rows = blocks.map((_, p) => h("tr", { role: "row" }, rowHeads[p], cells[p]));
  const table = h("table", { role: "grid", class: "heat", "aria-label": "Blocks and dependencies", style: { "--rows": blocks.length } }, h("thead", {}, h("tr", { role: "row" }, corner, heads)), h("tbody", {}, rows));
  const legend = h("div", { class: "legend" });
  const measured = h("div", { class: "measured" });
  const draw = () => {
    const scene = ctx.scene();
    const shown = store.get("reading") ?? "weight";
    reading.show(shown);
    table.dataset.reading = shown;
    table.setAttribute("aria-busy", String(!scene));
    const edits = ctx.dragged ? withEdit(store.get("edits").filter((e) => editsKey([{ ...e, value: null }]) !== editsKey([{ ...ctx.dragged, value: null }])), ctx.dragged) : store.get("edits");
    const values = scene ? tableValues(ctx, scene, shown, edits) : blocks.map(() => dependencies.map(() => null));
    const scale = scaleOf(shown, values, ctx.theme, ctx.about().network.wide);
    cells.forEach((row, p) => row.forEach((cell, m) => cellDraw(ctx, cell, { scene, shown, value: values[p][m], scale, edits, p, m })));
    heads.forEach((head, m) => headDraw(head, edits, null, m));
    rowHeads.forEach((head, p) => head.setAttribute("aria-selected", String(edits.some((e) => e.kind === "uniform" && (e.block ?? p) === p))));
    legendDraw(ctx, legend, shown, scale, scene);
  };
  ctx.watch(["scene", "progress", "selected", "edits", "reading", "theme"], draw);
  ctx.watch(["answers"], () => {
    const { done, total, left_s: seconds } = store.get("answers") ?? {};
    const busy = ctx.about().live && total > done;
    fill(measured, busy ? [h("span", {}, "measured in advance"), progress({ done, total, left_s: seconds })] : null);
  });
  gestures(ctx, table, draw);
  const [opener, list] = selectedView(ctx);
  const hint = h("p", { class: "hint" }, "Click: left out there. Shift-click: keep only. Drag in a cell: another weight.");
  ctx.watch(["scene", "selected"], () => text(hint, `Click: left out there${someClosed(ctx.scene()) ? ", or opened if it is closed" : ""}. Shift-click: keep only. Drag in a cell: another weight.`));
  return region("selection", "Selection", h("div", { class: "row above" }, opener, reading), table, list, legend, measured, hint, notice(ctx, "table"));
}

const someClosed = (scene) => scene?.closed?.flat().includes(true) ?? false;

/** Whether the clip gives a cell no weight, and no edit does either. */
function isClosed(scene, edits, p, m) {
  const opens = (e) => e.kind === "uniform" || (e.dependency === m && (e.kind === "open" || (e.kind === "weight" && e.value > 0)));
  return Boolean(scene?.closed?.[p]?.[m]) && !edits.some((e) => e.kind !== "frames" && (e.block ?? p) === p && opens(e));
}

/** What the clip selects, as a short list: the open cells, the costliest to leave out first. */
function selectedView(ctx) {
  const { dependencies, blocks } = ctx.about().network;
  const opener = button("", () => ctx.setLook({ list: !ctx.look().list }), { class: "opener", tip: "What this clip selects: the open cells, the costliest to leave out first." });
  const list = h("ol", { class: "selected-list", "aria-label": "What this clip selects" });
  const line = ({ p, m, weight, loss, is }) => {
    const drop = makeEdit("drop", p, m);
    const control = ctx.answer([drop])?.control;
    const band = control && { mean: -control.mean, low: -control.high, high: -control.low };
    const words = known(loss) ? `without it the probability falls by ${signed(loss)}` : "its loss is not measured yet";
    const plot = dotPlot({ value: loss, band, domain: [-0.25, 1], words });
    const out = stateOfCell(ctx.store.get("edits"), p, m) === "out";
    return h("li", {}, button(h("span", { "data-dep": dependencies[m] }, dependencies[m], h("small", {}, ` in ${blocks[p]}`)), () => ctx.edit(drop), { "data-key": `open ${p} ${m}`, "aria-pressed": String(out), tip: [`${dependencies[m]} in ${blocks[p]}`, `weight ${number(weight, 3)}`, `${words}${is === "estimated" ? " (estimated)" : ""}; ${controlWords(control)}`, "Click: left out there."] }), plot, h("span", { class: "log-number" }, signed(loss)));
  };
  ctx.watch(["scene", "progress", "selected", "answers", "look", "edits"], () => {
    const scene = ctx.scene();
    const cells = scene ? blocks.flatMap((_, p) => dependencies.map((_, m) => ({ p, m, weight: scene.weights[p][m], loss: scene.losses[p][m], is: scene.loss_is[p][m] }))).filter(({ p, m, weight }) => weight !== null && !scene.closed?.[p]?.[m]) : [];
    const open = Boolean(ctx.look().list) && someClosed(scene);
    opener.hidden = !someClosed(scene);
    opener.setAttribute("aria-expanded", String(open));
    text(opener, scene ? `${cells.length} of ${scene.weights.flat().filter((w) => w !== null).length} open` : "");
    list.hidden = !open;
    fill(list, open ? cells.sort((a, b) => (b.loss ?? -Infinity) - (a.loss ?? -Infinity)).map(line) : null);
  });
  return [opener, list];
}

function tableValues(ctx, scene, shown, edits) {
  if (shown === "contribution") return scene.contributions;
  if (shown === "loss") return scene.losses;
  return scene.weights.map((row, p) => editedRow(row, p, edits, ctx.about().network.wide?.[p]));
}

function headDraw(head, edits, block, m) {
  const mine = edits.filter((edit) => inRow(edit, block) && edit.dependency === m);
  head.dataset.edit = mine.at(-1)?.kind ?? "";
  head.setAttribute("aria-selected", String(mine.length > 0));
}

function stateOfCell(edits, p, m) {
  const here = edits.filter((e) => e.kind !== "frames" && (e.block ?? p) === p);
  const only = here.filter((e) => e.kind === "only");
  if (here.some((e) => e.kind === "drop" && e.dependency === m) || (only.length && !only.some((e) => e.dependency === m))) return "out";
  if (only.length) return "only";
  if (here.some((e) => (e.kind === "weight" || e.kind === "open") && e.dependency === m)) return "weight";
  return here.some((e) => e.kind === "uniform") ? "uniform" : "";
}

function cellDraw(ctx, cell, { scene, shown, value, scale, edits, p, m }) {
  const state = stateOfCell(edits, p, m);
  const is = shown !== "loss" || !scene ? "measured" : scene.present && !scene.present[p][m] ? "absent" : scene.loss_is?.[p]?.[m] ?? "waiting";
  const colour = scale.colour(known(value) ? value : scale.middle);
  const closed = isClosed(scene, edits, p, m);
  cell.dataset.edit = state;
  cell.dataset.is = scene?.present && !scene.present[p][m] ? "absent" : closed ? "closed" : is;
  cell.style.setProperty("--fill", css(colour));
  cell.style.setProperty("--ink", inkOn(colour));
  text(cell.firstChild, closed ? "closed" : known(value) ? (scale.signed ? signed(value) : number(value)) : is === "waiting" ? "·" : "–");
  cell.setAttribute("aria-selected", String(edits.some((e) => e.kind !== "frames" && e.block === p && e.dependency === m)));
  const name = `${ctx.about().network.dependencies[m]} in ${ctx.about().network.blocks[p]}`;
  const more = { out: ", left out", only: ", kept alone", weight: ", weight set", uniform: ", uniform" }[state] ?? "";
  const how = is === "estimated" ? ", estimated" : is === "waiting" ? ", not measured yet" : "";
  cell.setAttribute("aria-label", closed ? `${name}, closed${more}` : `${name}, ${shown} ${known(value) ? number(value) : "none"}${how}${more}`);
}

function cellWords(ctx, p, m) {
  const scene = ctx.scene();
  if (!scene) return null;
  const shown = ctx.store.get("reading");
  const { blocks, dependencies } = ctx.about().network;
  if (isClosed(scene, ctx.store.get("edits"), p, m)) return [`${dependencies[m]} in ${blocks[p]}: closed`, `${ctx.term("closed")} Click opens it.`, ctx.term(dependencies[m])];
  const places = { weight: "weights", contribution: "contributions", loss: "losses" };
  const value = scene[places[shown]][p][m];
  const rank = scene.percentiles?.[places[shown]]?.[p]?.[m];
  const who = known(scene.percentiles?.of) ? `clips of “${ctx.className(scene.percentiles.of)}”` : "all clips";
  const how = shown === "loss" ? { estimated: " (estimated from gradients)", null: " (not measured yet)" }[scene.loss_is?.[p]?.[m] ?? "null"] ?? "" : "";
  return [
    `${dependencies[m]} in ${blocks[p]}`,
    `${shown} ${known(value) ? (shown === "loss" ? signed(value, 3) : number(value, 3)) : "–"}${how}`,
    known(rank) ? `${ordinal(Math.round(rank))} percentile of ${who}, n = ${scene.percentiles.n}` : null,
    ctx.term(dependencies[m]),
  ];
}

function legendDraw(ctx, legend, shown, scale, scene) {
  const at = (k) => (scale.gates ? (k / 8) * scale.end : k < 4 ? scale.low + (k / 4) * (scale.middle - scale.low) : scale.middle + ((k - 4) / 4) * (scale.end - scale.middle));
  const stops = Array.from({ length: 9 }, (_, k) => css(scale.colour(at(k))));
  const middle = shown === "loss" ? "0 = no loss" : `${number(scale.middle)} = uniform`;
  const ends = [scale.signed ? signed(scale.low) : "0", scale.signed ? signed(scale.end) : number(scale.end)];
  const marks = scale.gates ? ends : [ends[0], middle, ends[1]];
  const guessed = shown === "loss" && scene?.loss_is?.flat().some((x) => x === "estimated");
  const bar = h("span", { class: "legend-bar", style: { background: `linear-gradient(to right, ${stops.join(", ")})` } });
  fill(legend, bar, h("span", { class: "legend-marks" }, marks.map((mark) => h("span", {}, mark))), guessed ? h("span", { class: "legend-guess" }, h("i", {}), "estimated; the measured number follows") : null);
}

/** Clicks, keys and drags on the table. */
function gestures(ctx, table, draw) {
  let start = null;
  let swallow = false;
  const place = (node) => node?.closest?.("[data-at]")?.dataset.at.split(" ").map(Number) ?? null;
  const find = (p, m) => table.querySelector(`[data-at="${p} ${m}"]`);
  const rows = ctx.about().network.blocks.length;
  const columns = ctx.about().network.dependencies.length;
  const act = ([p, m], only) => {
    if (!ctx.scene()) return;
    if (m < 0) return ctx.edit(makeEdit("uniform", p));
    if (p >= 0 && ctx.scene().present?.[p]?.[m] === false) return;
    const closed = ctx.scene().closed?.[p]?.[m] && !ctx.store.get("edits").some((e) => e.kind === "uniform" && (e.block ?? p) === p);
    if (closed && only) return ctx.edit(makeEdit("only", p, m), keptOpen(ctx.store.get("edits"), p, m));
    ctx.edit(makeEdit(only ? "only" : closed ? "open" : "drop", p < 0 ? null : p, m));
  };
  const weigh = ([p, m], value) => {
    const edits = ctx.store.get("edits").filter((e) => !(e.kind === "weight" && e.block === p && e.dependency === m));
    const edit = makeEdit("weight", p, m, round2(clamp(value, 0, most([p, m]))));
    ctx.edit(edit, withEdit(edits, edit));
  };
  const most = ([p, m]) => Math.max(0.01, round2(ctx.about().network.wide?.[p]?.[m] ?? 1)); // a gate is wide open
  const weightAt = ([p, m]) => editedRow(ctx.scene().weights[p], p, ctx.store.get("edits"), ctx.about().network.wide?.[p])[m] ?? 0;
  const focusAt = (at) => {
    table.querySelectorAll('[tabindex="0"]').forEach((node) => (node.tabIndex = -1));
    const node = find(...at);
    node.tabIndex = 0;
    node.focus();
  };
  find(0, 0).tabIndex = 0;
  table.addEventListener("click", (event) => {
    const at = place(event.target);
    if (at && !swallow) act(at, event.shiftKey);
    swallow = false;
  });
  table.addEventListener("pointerdown", (event) => {
    const at = place(event.target);
    swallow = false;
    if (!at || at[0] < 0 || at[1] < 0 || event.button !== 0 || !ctx.scene() || ctx.scene().weights[at[0]][at[1]] === null) return;
    start = { at, x: event.clientX, weight: weightAt(at), width: event.target.closest("td").clientWidth };
    table.setPointerCapture?.(event.pointerId);
  });
  table.addEventListener("pointermove", (event) => {
    if (!start || (!ctx.dragged && Math.abs(event.clientX - start.x) < 5)) return;
    const value = round2(clamp(start.weight + (most(start.at) * (event.clientX - start.x)) / (1.4 * start.width), 0, most(start.at)));
    ctx.dragged = makeEdit("weight", ...start.at, value);
    if (ctx.store.get("reading") !== "weight") ctx.store.set("reading", "weight");
    draw();
  });
  const drop = (event) => {
    const { dragged } = ctx;
    const from = start;
    ctx.dragged = null;
    start = null;
    if (!from) return;
    table.releasePointerCapture?.(event.pointerId);
    swallow = true;
    if (event.type === "pointercancel") return draw();
    if (dragged) weigh(from.at, dragged.value);
    else act(from.at, event.shiftKey);
    focusAt(from.at);
  };
  table.addEventListener("pointerup", drop);
  table.addEventListener("pointercancel", drop);
  table.addEventListener("keydown", (event) => {
    const at = place(event.target);
    if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const next = by && [clamp(at[0] + by[0], -1, rows - 1), clamp(at[1] + by[1], -1, columns - 1)];
    if (next && (next[0] >= 0 || next[1] >= 0)) focusAt(next);
    else if (event.key === "Enter" || event.key === " ") act(at, event.shiftKey);
    else if (["+", "=", "-"].includes(event.key) && Math.min(...at) >= 0 && ctx.scene()) weigh(at, weightAt(at) + (event.key === "-" ? -1 : 1) * Math.min(0.05, Math.max(0.01, most(at) / 5)));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

// ---------------------------------------------------------------- A beside B

function besideView(ctx) {
  const { store } = ctx;
  const set = (change) => ctx.put("beside", change);
  const clipChoice = choice("Clip B", "Another clip, shown by the same network.", (id) => id && set({ clip: id, frames: null, network: null }));
  const kinds = segments("Side B", Object.keys(FRAMES), (name) => set({ clip: null, frames: name, network: null }), (name) => name, (name) => () => [name, ctx.term(name)]);
  const presets = [
    button("same class", () => pick(true), { tip: "A clip of the same class in which another dependency is dominant." }),
    button("same selection", () => pick(false), { tip: "A clip of another class in which the same dependency is dominant." }),
  ];
  const pick = (sameClass) => {
    const clips = store.get("clips");
    const here = clips.find((clip) => clip.id === store.get("selected"));
    const fits = clips.filter((clip) => clip !== here && (clip.label === here?.label) === sameClass);
    const best = fits.find((clip) => (clip.dominant === here?.dominant) !== sameClass) ?? (sameClass ? fits[0] : null);
    if (best) return set({ clip: best.id, frames: null, network: null });
    ctx.say("No other clip fits.");
    text(words, sameClass ? "No other clip of this class is here." : "No clip of another class has this selection.");
  };
  const networks = choice("Network B", "Another network looks at the same clip.", (k) => k && set({ clip: null, frames: null, network: Number(k) }));
  const none = button("No comparison", () => set(null), { tip: "Only A again." });
  const words = h("p", { class: "beside-words" });
  const other = () => store.get("other");
  const sideA = side(ctx, "A", ctx.scene, ctx.mapNow);
  const sideB = side(ctx, "B", other, mapReader(ctx, "other_map", other));
  const table = h("table", { class: "heat small" });
  const classes = h("ol", { class: "differences" });
  const middle = h("div", { class: "middle" }, h("h3", {}, "B minus A"), table, classes);
  const body = h("div", { class: "sides" }, sideA, middle, sideB);
  ctx.watch(["beside", "other", "scene", "selected", "clips", "about", "theme", "look", "map", "other_map", "edits"], () => {
    const beside = store.get("beside");
    const [a, b] = [ctx.scene(), beside ? store.get("other") : null];
    const clips = (store.get("clips") ?? []).filter((clip) => clip.id !== store.get("selected"));
    clipChoice.show([["", "another clip …"], ...clips.map((clip) => [clip.id, clip.name])], beside?.clip ?? "");
    kinds.show(beside?.frames ?? "");
    const names = ctx.about().networks ?? [];
    networks.hidden = names.length < 2;
    networks.show([["", "another network …"], ...names.map((name, k) => [k, name])], beside?.network ?? "");
    body.hidden = !a || !b;
    text(words, !beside ? "Choose what to compare this clip with." : b ? "" : ctx.about().live ? "B is on its way." : "This page does not hold that comparison.");
    words.hidden = !words.textContent;
    none.hidden = !beside;
    if (a && b) differences(ctx, table, classes, a, b);
    sideA.draw();
    sideB.draw();
  });
  return region("beside", "Compare", h("div", { class: "row" }, kinds, clipChoice, presets, networks, none), words, body, notice(ctx, "beside"));
}

function side(ctx, letter, sceneOf, mapNow) {
  const [canvas, draw] = stage(ctx, sceneOf, overlayOf(ctx, mapNow), `Clip ${letter}`);
  const name = h("span", { class: "side-name" });
  const scrub = h("input", { type: "range", class: "scrub", min: 0, step: 1, "aria-label": `Frame of both, at ${letter}`, oninput: () => ctx.player.show(Number(scrub.value), false) });
  const bars = h("ol", { class: "mini-bars" });
  const box = h("div", { class: "side" }, h("h3", {}, letter, name), canvas, scrub, bars);
  ctx.player.listeners.add(() => (scrub.value = String(ctx.player.at)));
  box.draw = () => {
    const scene = sceneOf();
    scrub.max = String(ctx.player.T - 1);
    draw();
    if (!scene) return;
    text(name, [scene.name, scene.changed, scene.network ? ctx.about().networks[scene.network] : null].filter(Boolean).join(", "));
    fill(bars, scene.top.slice(0, 3).map((one) => h("li", {}, h("span", {}, ctx.className(one.class), one.class === scene.label ? " (true)" : ""), h("span", {}, number(one.probability)))));
  };
  return box;
}

function differences(ctx, table, list, a, b) {
  const { blocks, dependencies, classes } = ctx.about().network;
  const same = b.weights.length === a.weights.length;
  const part = a.gates === b.gates ? "weights" : "contributions";
  const values = same ? a[part].map((row, p) => row.map((w, m) => (known(w) && known(b[part][p][m]) ? b[part][p][m] - w : null))) : [];
  const scale = scaleOf("difference", values, ctx.theme);
  const cell = (x) => h("td", { style: { "--fill": css(scale.colour(x ?? 0)), "--ink": inkOn(scale.colour(x ?? 0)) } }, h("span", {}, signed(x)));
  const head = h("tr", {}, h("td", {}, h("span", { class: "unseen" }, "block")), dependencies.map((name) => h("th", { scope: "col", "data-dep": name }, name)));
  fill(table, h("caption", {}, !same ? "The two networks have different blocks." : a.gates === b.gates ? "weight" : "contribution (weights of gates and of shares cannot be compared)"), h("thead", {}, head), h("tbody", {}, values.map((row, p) => h("tr", {}, h("th", { scope: "row" }, blocks[p]), row.map(cell)))));
  const moved = classes.map((name, k) => [name, (b.probabilities[k] ?? 0) - a.probabilities[k]]).sort((x, y) => Math.abs(y[1]) - Math.abs(x[1])).slice(0, 4);
  fill(list, moved.map(([name, x]) => h("li", {}, h("span", {}, name), dotPlot({ value: x, domain: [-1, 1], words: `${name} ${signed(x)}` }), h("span", {}, signed(x)))));
}

// ---------------------------------------------------------------- questions

function questionsView(ctx) {
  const { store } = ctx;
  const cards = h("div", { class: "cards" });
  ctx.watch(["questions", "about", "status"], () => {
    const asked = ctx.about().questions ?? [];
    const told = store.get("questions") ?? {};
    fill(cards, asked.map((about) => questionCard(ctx, about, told[about.name] ?? { state: "unmeasured", rows: [] })));
  });
  return region("questions", "Questions", cards, notice(ctx, "questions"));
}

function questionCard(ctx, about, told) {
  const rows = told.rows ?? [];
  const zero = rows.find((row) => known(row.reference))?.reference ?? 0;
  const domain = domainOf(rows, zero);
  const running = told.state === "running";
  const ask = running
    ? button("Cancel", () => ctx.tell({ ask: "cancel" }), { "data-key": `ask ${about.name}`, tip: "Stop; what is measured stays." })
    : button(told.state === "done" ? "Again" : "Measure", () => ctx.tell({ ask: "question", name: about.name, ids: fitting(ctx).map((clip) => clip.id) }), { "data-key": `ask ${about.name}`, tip: "Measured on the clips that fit the filters." });
  const line = (row) => h(
    "tr", {}, h("th", { scope: "row" }, row.label),
    h("td", {}, dotPlot({ ...row, zero: row.reference ?? zero, domain, words: `${row.label} ${signed(row.value)} [${signed(row.low)}, ${signed(row.high)}], n = ${row.n}` })),
    h("td", { class: "number" }, `${signed(row.value)} `, h("small", {}, known(row.low) ? `[${signed(row.low)}, ${signed(row.high)}] ` : "", known(row.n) ? `n = ${row.n}` : "")),
  );
  const unit = rows.find((row) => row.unit)?.unit;
  return h(
    "article", { class: "card", "data-state": told.state, "data-question": about.name },
    h("h3", {}, about.title), h("p", {}, about.words ?? ""),
    rows.length ? h("table", { class: "plot-table" }, unit ? h("caption", {}, unit) : null, h("tbody", {}, rows.map(line))) : h("p", { class: "not-yet" }, running ? "The first numbers are on their way." : "Not measured yet."),
    told.verdict ? h("p", { class: "verdict-line" }, told.verdict) : null,
    told.state === "failed" ? h("p", { class: "failed", role: "alert" }, told.message ?? "It failed.") : null,
    h("div", { class: "row" }, running && told.total ? progress(told) : null, ctx.about().live ? ask : null),
  );
}

// ---------------------------------------------------------------- the clips: thumbnails, filters, uploads

const NO_FILTERS = { text: "", classes: [], right: null, dominant: [], own: null, sort: "list" };
const SORTS = { list: "as listed", margin: "least sure first", probability: "least probable first", entropy: "highest entropy first" };

/** The clips that fit the filters, sorted. */
function fitting(ctx) {
  const filters = { ...NO_FILTERS, ...ctx.store.get("filters") };
  const wanted = filters.text.trim().toLowerCase();
  const classes = ctx.about().network.classes;
  const clips = (ctx.store.get("clips") ?? []).filter((clip) => {
    if (filters.right !== null && clip.right !== filters.right) return false;
    if (filters.own !== null && clip.own !== filters.own) return false;
    if (filters.dominant.length && !filters.dominant.includes(clip.dominant)) return false;
    if (filters.classes.length && !filters.classes.includes(clip.label) && !filters.classes.includes(clip.predicted)) return false;
    return !wanted || [clip.name, classes[clip.label], classes[clip.predicted]].some((words) => words?.toLowerCase().includes(wanted));
  });
  const key = filters.sort;
  const sign = key === "entropy" ? -1 : 1;
  if (key !== "list") clips.sort((a, b) => sign * ((a[key] ?? Infinity) - (b[key] ?? Infinity)));
  return clips;
}

function clipsView(ctx) {
  const { store } = ctx;
  const grid = h("div", { role: "listbox", class: "clips-grid", "aria-label": "Clips" });
  const count = h("span", { class: "count" });
  const cards = new Map();
  const card = (clip) => {
    const told = JSON.stringify({ ...clip, thumb: clip.thumb?.length });
    if (cards.get(clip.id)?.told !== told) cards.set(clip.id, { told, node: clipCard(ctx, clip) });
    return cards.get(clip.id).node;
  };
  let at = null;
  const thumbs = lateThumbs(ctx, grid);
  const draw = () => {
    const clips = fitting(ctx);
    const all = store.get("clips") ?? [];
    const here = store.get("selected");
    text(count, clips.length === all.length ? `${all.length} clips` : `${clips.length} of ${all.length} clips`);
    const nodes = clips.slice(0, 600).map(card);
    const same = nodes.length === grid.children.length && nodes.every((node, k) => node === grid.children[k]);
    if (!same) thumbs();
    if (!same) fill(grid, nodes.length ? nodes : h("p", { class: "empty" }, all.length ? "No clip fits these filters." : "No clips yet: drop a video here."));
    nodes.forEach((node, k) => {
      const chosen = clips[k].id === here;
      node.setAttribute("aria-selected", String(chosen));
      node.tabIndex = chosen || (k === 0 && !clips.some((clip) => clip.id === here)) ? 0 : -1;
      if (chosen && at !== here) scrollInto(grid, node);
    });
    at = here;
  };
  ctx.watch(["clips", "filters", "selected", "about"], draw);
  grid.addEventListener("keydown", (event) => {
    const nodes = [...grid.children];
    const k = nodes.indexOf(event.target);
    if (k < 0) return;
    const columns = Math.max(1, nodes.filter((node) => node.offsetTop === nodes[0].offsetTop).length);
    if (event.key === "Delete" && nodes[k].querySelector(".forget")) return nodes[k].querySelector(".forget").click();
    const to = { ArrowRight: k + 1, ArrowLeft: k - 1, ArrowDown: k + columns, ArrowUp: k - columns, Home: 0, End: nodes.length - 1 }[event.key];
    if (to === undefined && event.key !== "Enter" && event.key !== " ") return;
    const node = nodes[to === undefined ? k : clamp(to, 0, nodes.length - 1)];
    node.focus();
    ctx.select(node.dataset.key);
    event.preventDefault();
    event.stopPropagation();
  });
  const more = button("All", () => ctx.setLook({ grid: !ctx.look().grid }), { "aria-expanded": "false", tip: "Show all clips with their filters, or one row." });
  const box = region("clips", "Clips", h("div", { class: "row above" }, count, filtersView(ctx), h("span", { class: "spring" }), addView(ctx), more), notice(ctx, "clips", "upload"), grid);
  ctx.watch(["look"], () => {
    box.dataset.grid = String(Boolean(ctx.look().grid));
    more.setAttribute("aria-expanded", box.dataset.grid);
    text(more, ctx.look().grid ? "One row" : "All clips");
  });
  return box;
}

/** Thumbnails of large sets come when their cards are seen. */
function lateThumbs(ctx, grid) {
  const asked = new Set();
  let due = 0;
  const ask = () => {
    const ids = [...asked].splice(0, 24);
    ids.forEach((id) => asked.delete(id));
    ctx.tell({ ask: "thumbs", ids });
    due = asked.size ? setTimeout(ask, 200) : 0;
  };
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      asked.add(target.parentElement.dataset.key);
    }
    if (asked.size && !due) due = setTimeout(ask, 60);
  });
  const show = (message) => {
    for (const [id, thumb] of Object.entries(message?.thumbs ?? {})) {
      ctx.thumbs.set(id, thumb);
      const card = [...grid.children].find((node) => node.dataset.key === id);
      card?.querySelector(".no-thumb")?.replaceWith(picture(thumb, { alt: "" }));
    }
  };
  ctx.cleanup.push(ctx.store.on("message", show), () => (seen.disconnect(), clearTimeout(due)));
  return () => requestAnimationFrame(() => ctx.about().live && grid.querySelectorAll(".no-thumb").forEach((node) => seen.observe(node)));
}

function scrollInto(box, node) {
  const [a, b] = [box.getBoundingClientRect(), node.getBoundingClientRect()];
  if (b.left < a.left || b.right > a.right) box.scrollLeft += b.left - a.left - (a.width - b.width) / 2;
}

function clipCard(ctx, clip) {
  const { dependencies } = ctx.about().network;
  const label = clip.label === null ? "true class not known" : ctx.className(clip.label);
  const answer = known(clip.predicted) ? `answer: ${ctx.className(clip.predicted)} ${number(clip.probability)}` : "not read yet";
  const dominant = dependencies[clip.dominant];
  const thumb = clip.thumb ?? ctx.thumbs.get(clip.id);
  const forget = (event) => (event.stopPropagation(), ctx.tell({ ask: "forget", clip: clip.id }));
  return h(
    "div", { role: "option", class: "clip-card", "data-key": clip.id, "aria-label": `${clip.name}, ${label}, ${answer}`, onclick: () => ctx.select(clip.id), tip: [clip.name, label, answer, dominant ? `dominant: ${dominant}` : null] },
    thumb ? picture(thumb, { alt: "", loading: "lazy" }) : h("span", { class: "no-thumb" }),
    clip.right === null || clip.right === undefined ? null : h("span", { class: "badge", "data-right": String(clip.right), "aria-hidden": "true" }, clip.right ? "✓" : "✗"),
    dominant ? h("span", { class: "badge dep", "data-dep": dominant, "aria-hidden": "true" }, dominant) : null,
    h("span", { class: "clip-name", "aria-hidden": "true" }, h("bdi", {}, clip.own ? `own: ${clip.name}` : clip.name)),
    clip.own && ctx.about().live ? h("span", { class: "forget", onclick: forget, tip: "Take your clip away again (key Delete).", "aria-hidden": "true" }, "×") : null,
  );
}

function filtersView(ctx) {
  const { store } = ctx;
  const now = () => ({ ...NO_FILTERS, ...store.get("filters") });
  const set = (change) => ctx.put("filters", { ...now(), ...change });
  const words = h("input", { type: "search", placeholder: "name or class", "aria-label": "Filter by name or class", oninput: () => set({ text: words.value }) });
  const chip = (shown, tip, on, act) => {
    const node = button(shown, () => set(act(now())), { class: "chip", "aria-pressed": "false", tip });
    node.on = on;
    return node;
  };
  const chips = [
    chip("right", "Only clips whose answer is right.", (f) => f.right === true, (f) => ({ right: f.right === true ? null : true })),
    chip("wrong", "Only clips whose answer is wrong.", (f) => f.right === false, (f) => ({ right: f.right === false ? null : false })),
    ...ctx.about().network.dependencies.map((name, m) => chip(name, `Only clips in which ${name} is dominant.`, (f) => f.dominant.includes(m), (f) => ({ dominant: f.dominant.includes(m) ? f.dominant.filter((d) => d !== m) : [...f.dominant, m] }))),
    chip("own", "Only clips that you added.", (f) => f.own === true, (f) => ({ own: f.own === true ? null : true })),
  ];
  const classes = choice("Class", "Only clips of this class, or predicted as it.", (k) => set({ classes: k === "" ? [] : [Number(k)] }));
  const sort = choice("Sort", "How the clips are sorted.", (key) => set({ sort: key }));
  ctx.watch(["filters", "about"], () => {
    const filters = now();
    if (words.value !== filters.text) words.value = filters.text;
    chips.forEach((one) => one.setAttribute("aria-pressed", String(one.on(filters))));
    classes.show([["", "all classes"], ...ctx.about().network.classes.map((name, k) => [k, name])], filters.classes[0] ?? "");
    sort.show(Object.entries(SORTS), filters.sort);
  });
  return h("div", { class: "filters", role: "group", "aria-label": "Filters" }, words, chips, classes, sort);
}

/** Videos from the disk: cut into pieces here, the limit told before anything is sent. */
function addView(ctx) {
  const { store, root } = ctx;
  const queue = [];
  let now = null;
  const bar = h("div", { class: "upload", role: "status", hidden: true });
  const refuse = (words, remedy) => store.set("status", { state: "error", where: "upload", message: words, remedy });
  const limits = () => ctx.about().limits;
  const add = (files) => {
    if (!ctx.about().live) return refuse("This is a recorded page: it takes no videos.", "Open the clips live: sda app FOLDER");
    if (!limits()) return refuse("No videos are taken here.", "Give a folder when you open the inspector.");
    for (const file of files) {
      if (file.name.endsWith(".json")) file.text().then((state) => ctx.tell({ ask: "load", state }));
      else if (file.size > limits().upload_bytes) refuse(`“${file.name}” has ${megabytes(file.size)}; at most ${megabytes(limits().upload_bytes)} are taken.`, "Cut the video, or open its folder with sda app FOLDER");
      else if (!file.size) refuse(`“${file.name}” is empty.`, "Choose another file.");
      else queue.push(file);
    }
    if (!now) next();
  };
  const next = () => {
    now = queue.shift() ?? null;
    if (now) now = { file: now, index: 0, total: Math.ceil(now.size / limits().chunk_bytes) };
    draw();
    if (now) piece();
  };
  const draw = () => {
    bar.hidden = !now;
    if (now) fill(bar, h("span", {}, `${now.file.name}: ${megabytes(Math.min(now.file.size, now.index * limits().chunk_bytes))} of ${megabytes(now.file.size)}`), h("progress", { max: now.total, value: now.index, "aria-label": "upload" }), button("Cancel", cancel, { "data-key": "cancel upload" }));
  };
  const cancel = () => {
    queue.length = 0;
    now = null;
    draw();
    ctx.tell({ ask: "cancel" });
  };
  const piece = async () => {
    const { file, index, total } = now;
    const from = index * limits().chunk_bytes;
    try {
      const data = await file.slice(from, from + limits().chunk_bytes).arrayBuffer();
      if (now?.file === file) ctx.tell({ ask: "upload", name: file.name, index, total, bytes: file.size }, [data]);
    } catch {
      refuse(`“${file.name}” cannot be read.`, "Drop a file, or a folder of files.");
      next();
    }
  };
  ctx.cleanup.push(
    store.on("status", () => {
      const status = store.get("status");
      if (!now || status?.where !== "upload") return;
      if (status.state === "error") return next();
      if (status.done !== now.index + 1) return;
      now.index += 1;
      if (now.index >= now.total) return next();
      draw();
      piece();
    }),
  );
  const input = h("input", { type: "file", multiple: true, hidden: true, "aria-label": "Add videos", onchange: () => (add([...input.files]), (input.value = "")) });
  const path = h("input", { type: "text", placeholder: "path of a video or folder", "aria-label": "Path of a video or folder", tip: "A path on this machine; Enter opens it.", onkeydown: (event) => event.key === "Enter" && path.value.trim() && ctx.tell({ ask: "path", path: path.value.trim() }) });
  const pick = button("Add videos", () => input.click(), { tip: () => limits() && `Or drop them anywhere, at most ${megabytes(limits().upload_bytes)} each; or a saved state (JSON).` });
  const offer = choice("Open", "Another set of clips or another network.", (name) => ctx.tell({ ask: "open", offer: name }));
  const veil = h("div", { class: "veil", hidden: true }, h("p", {}));
  dropTarget(ctx, veil, add);
  ctx.watch(["about"], () => {
    const about = ctx.about();
    path.hidden = !about.paths;
    pick.hidden = !about.live || !about.limits;
    offer.hidden = (about.offers ?? []).length < 2;
    offer.show((about.offers ?? []).map((name) => [name, name]), about.offer ?? "");
    text(veil.firstChild, about.live && about.limits ? `Drop videos: at most ${megabytes(about.limits.upload_bytes)} each` : "A recorded page takes no videos: open the clips live");
  });
  root.append(veil);
  return h("div", { class: "add" }, bar, offer, path, pick, input);
}

function dropTarget(ctx, veil, add) {
  const { root } = ctx;
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  root.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  root.addEventListener("dragleave", (event) => {
    if (!root.contains(event.relatedTarget)) veil.hidden = true;
  });
  root.addEventListener("drop", async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    event.stopPropagation();
    veil.hidden = true;
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...event.dataTransfer.files];
    add(entries.some((entry) => entry.isDirectory) ? (await Promise.all(entries.map(filesIn))).flat() : files);
  });
}

async function filesIn(entry) {
  if (entry.isFile) return new Promise((resolve) => entry.file((file) => resolve([file]), () => resolve([])));
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return (await Promise.all(found.map(filesIn))).flat();
    found.push(...some.filter((one) => !one.name.startsWith(".")));
  }
}

// ---------------------------------------------------------------- the whole

function addKeys(ctx) {
  const presses = {
    " ": () => ctx.player.play(), "[": () => ctx.step(-1), "]": () => ctx.step(1), u: ctx.undo, U: ctx.redo, m: ctx.toggleMap, "?": ctx.help,
    r: () => ctx.edit(makeEdit("frames", null, null, "reversed")), s: () => ctx.edit(makeEdit("frames", null, null, "shuffled")),
    f: () => ctx.edit(makeEdit("frames", null, null, "frozen")), b: () => ctx.edit(makeEdit("frames", null, null, "blurred")),
    w: () => ctx.put("reading", "weight"), c: () => ctx.put("reading", "contribution"), l: () => ctx.put("reading", "loss"),
    ArrowLeft: () => ctx.player.show(ctx.player.at - 1, false), ArrowRight: () => ctx.player.show(ctx.player.at + 1, false),
  };
  ctx.root.addEventListener("keydown", (event) => {
    event.stopPropagation();
    const typing = event.target.closest("input, select, textarea, dialog, [role=menu]");
    const own = event.key === " " && event.target.closest("button");
    if (typing || own || event.ctrlKey || event.metaKey || event.altKey || !presses[event.key]) return;
    presses[event.key]();
    event.preventDefault();
  });
}

/** Light or dark, as the colours around the view are; told again when they change. */
function followTheme(ctx) {
  const look = () => {
    const theme = themeOf(ctx.root);
    if (ctx.root.dataset.theme === theme) return;
    ctx.root.dataset.theme = theme;
    ctx.theme = theme;
    ctx.themes.forEach((call) => call());
  };
  const soon = () => [0, 200, 1000].forEach((wait) => timers.add(setTimeout(look, wait)));
  const timers = new Set();
  const seen = new MutationObserver(soon);
  [document.documentElement, document.body].forEach((node) => seen.observe(node, { attributes: true }));
  const media = window.matchMedia?.("(prefers-color-scheme: dark)");
  media?.addEventListener("change", soon);
  ctx.cleanup.push(() => (seen.disconnect(), media?.removeEventListener("change", soon), timers.forEach(clearTimeout)));
  look();
  soon();
}

function followSight(ctx) {
  const sight = new IntersectionObserver((entries) => {
    ctx.player.seen = entries.at(-1).isIntersecting;
    ctx.player.run();
  });
  sight.observe(ctx.root);
  ctx.cleanup.push(() => sight.disconnect());
}

/** Draw the inspector into an element, again when another network is opened; what it returns takes it away. */
export function mount(el, store) {
  const network = () => JSON.stringify(store.get("about")?.network ?? null);
  let drawn = network();
  let end = draw(el, store);
  const stop = store.on("about", () => {
    if (network() === drawn) return;
    drawn = network();
    end();
    end = draw(el, store);
  });
  return () => (stop(), end());
}

function draw(el, store) {
  const cleanup = [];
  const root = h("div", { class: "sda-inspector", tabindex: "-1", "data-lm-suppress-shortcuts": "true" });
  el.append(root);
  if (!store.get("about")?.network) {
    root.append(h("div", { class: "frame" }, h("p", { class: "empty" }, "The inspector waits for its kernel.")));
    return () => root.remove();
  }
  const ctx = makeContext(root, store, cleanup);
  const said = h("div", { class: "unseen", "aria-live": "polite" });
  ctx.say = (words) => text(said, words);
  const drawers = { beside: () => besideView(ctx), questions: () => questionsView(ctx) };
  const built = {};
  ctx.open = (part) => ctx.setLook({ open: ctx.look().open === part ? null : part });
  const main = h("main", {}, headView(ctx), findingView(ctx), clipView(ctx), answerView(ctx), selectionView(ctx));
  const frame = h("div", { class: "frame" }, main, clipsView(ctx));
  root.append(frame, dialogView(ctx), said);
  addTooltip(root);
  addKeys(ctx);
  ctx.watch(["look"], () => {
    const part = ctx.look().open;
    for (const name of Object.keys(drawers)) {
      const fresh = name === part && !built[name];
      if (fresh) main.after((built[name] = drawers[name]()));
      if (built[name]) built[name].hidden = name !== part;
      if (fresh) built[name].scrollIntoView({ block: "nearest" });
    }
    root.dataset.open = part ?? "";
  });
  followTheme(ctx);
  followSight(ctx);
  if (ctx.about().live) ctx.tell({ ask: "here" });
  return () => {
    cleanup.splice(0).forEach((end) => end());
    root.remove();
  };
}

export default { render: ({ model, el }) => mount(el, liveStore(model)) };
