// A dialog that shows an answer beside the question: lines between matched features, or laid over the question.
import { get, picture, query, server, thumbnail } from "./api.js";
import { h, icon, nameOf, notice, openDialog, s, save, shown } from "./dom.js";
import { badge, outline } from "./hits.js";
import { judgementButtons } from "./judgements.js";
import { T } from "./texts.js";

const MODES = ["lines", "slider", "blink", "overlay"];
const LINES = 50;
const NARROW = 620;
const GAP = 0.03;
const settings = { mode: "lines", lines: LINES, slider: 50, delay: 600, overlay: 50 };

// The CSS matrix that lays the image onto the query: the inverse of the map from query to image, whose coordinates
// are centres of pixels, half a pixel from the corner where CSS starts to count.
export function matrixOf([[a, b, x], [c, d, y]]) {
  const area = a * d - b * c;
  const [p, q, r, t] = [d / area, -b / area, -c / area, a / area];
  const [u, v] = [-0.5 - x, -0.5 - y];
  return `matrix(${[p, r, q, t, p * u + q * v + 0.5, r * u + t * v + 0.5].join(", ")})`;
}

const image = (address, [width, height], more = {}) =>
  s("image", { href: address, width, height, preserveAspectRatio: "none", ...more });

function frame(width, height, label, ...children) {
  const drawing = s("svg", { class: "drawing", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    children);
  drawing.style.aspectRatio = `${width} / ${height}`;
  drawing.style.setProperty("--ratio", width / height);
  return drawing;
}

// Both photographs on one canvas, side by side with equal heights, or one above the other with equal widths.
function drawLines({ found, sources, sizes, narrow }) {
  const [one, other] = sizes;
  const side = narrow ? 0 : 1;
  const factors = [1000 / one[side], 1000 / other[side]];
  const gap = 1000 * GAP;
  const shift = narrow ? [0, one[1] * factors[0] + gap] : [one[0] * factors[0] + gap, 0];
  const [width, height] = narrow ? [1000, shift[1] + other[1] * factors[1]] : [shift[0] + other[0] * factors[1], 1000];
  const at = [([x, y]) => [(x + 0.5) * factors[0], (y + 0.5) * factors[0]],
    ([x, y]) => [(x + 0.5) * factors[1] + shift[0], (y + 0.5) * factors[1] + shift[1]]];
  const pairs = found.pairs.slice(0, settings.lines).map(({ query: start, image: end }) => [at[0](start), at[1](end)]);
  const lines = ["casing", "line"].map((kind) => pairs.map(([[x1, y1], [x2, y2]]) =>
    s("line", { class: `pair ${kind}`, x1, y1, x2, y2 })));
  const ends = pairs.flat().map(([cx, cy]) => s("circle", { class: "end", cx, cy, r: 4 }));
  const outlines = [found.hit.query_region, found.hit.region].map((region, i) =>
    region?.length > 2 ? outline(region.map(at[i])) : []);
  return frame(width, height, T.compare.drawn(pairs.length),
    image(sources[0], one.map((value) => value * factors[0])),
    image(sources[1], other.map((value) => value * factors[1]), { x: shift[0], y: shift[1] }), outlines, lines, ends);
}

// The image moved onto the query; `set` receives its opacity and from which share of the width on it is seen.
function drawRegistered({ found, sources, sizes }, label) {
  const [width, height] = sizes[0];
  const cut = s("rect", { x: 0, y: 0, width, height });
  const moved = image(sources[1], sizes[1]);
  moved.style.transform = matrixOf(found.hit.affine);
  const layer = s("g", { "clip-path": "url(#cut)" }, moved);
  const edge = s("line", { class: "edge", y1: 0, y2: height, visibility: "hidden" });
  const drawing = frame(width, height, label, s("clipPath", { id: "cut" }, cut), image(sources[0], sizes[0]), layer, edge);
  const set = (opacity, share = 0) => {
    layer.style.opacity = opacity;
    cut.setAttribute("x", share * width);
    edge.setAttribute("visibility", share > 0 ? "visible" : "hidden");
    edge.setAttribute("x1", share * width);
    edge.setAttribute("x2", share * width);
  };
  return { drawing, set };
}

function range(label, name, least, most, changed) {
  const value = h("output", {});
  const input = h("input", { type: "range", min: least, max: most, value: settings[name], oninput: () => update() });
  function update() {
    settings[name] = Number(input.value);
    value.textContent = T.compare.value[name](input.value);
    changed(settings[name]);
  }
  return { node: h("label", { class: "range" }, h("span", {}, label), input, value), update, input };
}

// Each mode returns its nodes and is ended by `signal`.
const shows = {
  lines(scene) {
    const place = h("div", {});
    const most = scene.found.pairs.length;
    const amount = range(T.compare.number, "lines", 0, most, () => place.replaceChildren(drawLines(scene)));
    amount.update();
    return [place, most > 0 && amount.node];
  },
  slider(scene) {
    const { drawing, set } = drawRegistered(scene, T.compare.laid);
    const share = range(T.compare.slider, "slider", 0, 100, (value) => set(1, value / 100));
    const follow = (event) => {
      if (event.type === "pointermove" && event.buttons !== 1) return;
      const { left, width } = drawing.getBoundingClientRect();
      share.input.value = (100 * (event.clientX - left)) / width;
      share.update();
    };
    drawing.classList.add("sliding");
    ["pointerdown", "pointermove"].forEach((kind) => drawing.addEventListener(kind, follow));
    share.update();
    return [drawing, share.node];
  },
  blink(scene, signal) {
    const { drawing, set } = drawRegistered(scene, T.compare.laid);
    let seen = true;
    let timer = 0;
    let running = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = () => { seen = !seen; set(seen ? 1 : 0); };
    const restart = () => {
      clearInterval(timer);
      if (running) timer = setInterval(step, settings.delay);
      button.textContent = running ? T.compare.stop : T.compare.start;
    };
    const button = h("button", { type: "button", onclick: () => { running = !running; restart(); } });
    const swap = h("button", { type: "button", onclick: step }, T.compare.swap);
    const delay = range(T.compare.delay, "delay", 200, 2000, restart);
    delay.update();
    signal.addEventListener("abort", () => clearInterval(timer));
    return [drawing, h("div", { class: "row" }, button, swap), delay.node];
  },
  overlay(scene) {
    const { drawing, set } = drawRegistered(scene, T.compare.laid);
    const opacity = range(T.compare.opacity, "overlay", 0, 100, (value) => set(value / 100));
    opacity.update();
    return [drawing, opacity.node];
  },
};

const turned = (turn) => turn && T.compare.turned(turn);

function facts(hit) {
  const shares = hit.overlap && hit.inliers ? T.compare.overlap(hit.overlap.query, hit.overlap.image) : null;
  const found = [hit.inliers !== null && T.compare.inliers(hit.inliers, hit.places), shares, turned(hit.turn),
    hit.probability !== null && T.compare.probability(hit.probability)];
  return h("p", { class: "hint" }, found.filter(Boolean).join(" · "));
}

// hits, hit: the answers that can be stepped through and the first one; show: receives the name that is shown or null;
// ask: asks with other photographs.
export function openCompare({ hits, hit, photos, box, show, ask }) {
  let current = new AbortController();
  const body = h("div", { class: "stack" });
  const dialog = openDialog(T.compare.title, body, { wide: true, closed: () => { current.abort(); show(null); } });

  async function load(next) {
    hit = next;
    show(hit.name);
    current.abort();
    current = new AbortController();
    const { signal } = current;
    const photo = photos[hit.question ?? 0];
    const asked = { name: hit.name, [photo.upload ? "upload" : "query"]: photo.upload ?? photo.name,
      box: photos.length === 1 ? box?.join(",") : null, turn: hit.turn };
    const content = h("div", { class: "stack", "aria-live": "polite" }, h("p", { class: "hint" }, T.compare.waiting));
    body.replaceChildren(head(photo), content);
    try {
      const found = await get("/compare", asked, signal);
      found.hit.verdict ??= hit.verdict;
      const sizes = [found.query.size, found.image.size];
      const sources = [picture(photo, 1280), thumbnail(hit.name, 1280)];
      const scene = { found, sources, sizes, narrow: dialog.clientWidth < NARROW };
      content.replaceChildren(facts(found.hit), ...stages(scene, signal), foot(found, asked, photo));
    } catch (error) {
      if (!signal.aborted) content.replaceChildren(notice(error, () => load(hit)));
    }
  }

  function head(photo) {
    const place = hits.indexOf(hit);
    const step = (by, name, label) => h("button", { type: "button", class: "square", "aria-label": label, title: label,
      disabled: !hits[place + by], onclick: () => load(hits[place + by]).then(() => refocus(label)) }, icon(name));
    return h("div", { class: "row between" },
      h("div", { class: "names" }, nameOf(photo.name), h("span", { class: "hint" }, T.compare.with), nameOf(hit.name)),
      h("div", { class: "row" }, badge(hit.verdict), judgementButtons(photo, box, hit.name),
        step(-1, "back", T.compare.previous), step(1, "forth", T.compare.next)));
  }

  function refocus(label) {
    const buttons = [...dialog.querySelectorAll("button:enabled")];
    (buttons.find((button) => button.title === label) ?? dialog.querySelector("input"))?.focus();
  }

  function stages(scene, signal) {
    const stage = h("div", { class: "stack" });
    let ending = new AbortController();
    const choose = (mode) => {
      settings.mode = mode;
      ending.abort();
      ending = new AbortController();
      signal.addEventListener("abort", () => ending.abort());
      stage.replaceChildren(...shows[mode](scene, ending.signal).filter(Boolean));
    };
    const modes = scene.found.hit.affine ? MODES : ["lines"];
    choose(modes.includes(settings.mode) ? settings.mode : "lines");
    const choices = modes.map((mode) => h("label", { class: "segment" }, h("input", { type: "radio", name: "mode",
      value: mode, checked: mode === settings.mode, onchange: () => choose(mode) }), T.compare.modes[mode]));
    return [modes.length > 1 ? h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, T.compare.mode),
      choices) : h("p", { class: "note" }, T.compare.unregistered), stage];
  }

  function foot(found, asked, photo) {
    const address = `/compare/picture?${query({ index: server.index.name, ...asked })}`;
    const content = () => JSON.stringify({ index: server.index.name, query: shown(photo.name), box, ...found }, null, 1);
    return h("div", { class: "row foot" },
      h("a", { class: "button", href: address, download: "comparison.jpg" }, icon("save"), T.compare.picture),
      h("button", { type: "button", onclick: () => save("comparison.json", "application/json", content()) }, icon("save"),
        T.compare.json),
      h("button", { type: "button", onclick: () => ask({ photos: [{ name: hit.name }] }) }, icon("ask"), T.compare.ask));
  }

  load(hit);
}
