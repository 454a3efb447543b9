// A dialog that shows an answer beside the question: lines between matched features, or laid over the question.
import { get, picture, query, server, thumbnail } from "./api.js";
import { button, h, hint, icon, nameOf, notice, openDialog, renewed, row, s, save, signButton, stack } from "./dom.js";
import { badge, outline } from "./hits.js";
import { judgementButtons } from "./judgements.js";
import { T } from "./texts.js";

const NARROW = 620;
const SIDE = 1000;
const GAP = 30;
const settings = { mode: "lines", lines: 50, slider: 50, delay: 600, overlay: 50 };

// The CSS matrix that lays the image onto the query: the inverse of the map from query to image, whose coordinates
// are centres of pixels, half a pixel from the corner where CSS starts to count.
function matrixOf([[a, b, x], [c, d, y]]) {
  const area = a * d - b * c;
  const [p, q, r, t] = [d / area, -b / area, -c / area, a / area];
  const [u, v] = [-0.5 - x, -0.5 - y];
  return `matrix(${[p, r, q, t, p * u + q * v + 0.5, r * u + t * v + 0.5].join(", ")})`;
}

const image = (href, [width, height], x = 0, y = 0) =>
  s("image", { href, width, height, x, y, preserveAspectRatio: "none" });

function drawing(width, height, label, ...children) {
  const shape = { class: "drawing", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label };
  const drawn = s("svg", shape, children);
  drawn.style.aspectRatio = `${width} / ${height}`;
  drawn.style.setProperty("--ratio", width / height);
  return drawn;
}

// Both photographs on one canvas: side by side with equal heights, or one above the other with equal widths.
function drawLines({ found, sources, sizes }) {
  const isNarrow = innerWidth < NARROW;
  const factors = sizes.map((size) => SIDE / size[isNarrow ? 0 : 1]);
  const [one, other] = sizes.map((size, i) => size.map((side) => side * factors[i]));
  const [x, y] = isNarrow ? [0, one[1] + GAP] : [one[0] + GAP, 0];
  const at = [[0, 0], [x, y]].map(([left, top], i) => ([u, v]) =>
    [(u + 0.5) * factors[i] + left, (v + 0.5) * factors[i] + top]);
  const pairs = found.pairs.slice(0, settings.lines).map((pair) => [at[0](pair.query), at[1](pair.image)]);
  const lines = ["casing", "line"].map((kind) => pairs.map(([[x1, y1], [x2, y2]]) =>
    s("line", { class: `pair ${kind}`, x1, y1, x2, y2 })));
  const ends = pairs.flat().map(([cx, cy]) => s("circle", { class: "end", cx, cy, r: 4 }));
  const outlines = [found.hit.query_region, found.hit.region].map((region, i) =>
    region?.length > 2 ? outline(region.map(at[i])) : []);
  return drawing(x + other[0], y + other[1], T.compare.drawn(pairs.length), image(sources[0], one),
    image(sources[1], other, x, y), outlines, lines, ends);
}

// The image moved onto the query; `set` receives its opacity and from which share of the width on it is seen.
function drawRegistered({ found, sources, sizes }) {
  const [width, height] = sizes[0];
  const cut = s("rect", { x: 0, y: 0, width, height });
  const moved = image(sources[1], sizes[1]);
  moved.style.transform = matrixOf(found.hit.affine);
  const layer = s("g", { "clip-path": "url(#cut)" }, moved);
  const edge = s("line", { class: "edge", x1: 0, x2: 0, y1: 0, y2: height });
  const drawn = drawing(width, height, T.compare.laid, s("clipPath", { id: "cut" }, cut), image(sources[0], sizes[0]),
    layer, edge);
  const set = (opacity, share = 0) => {
    layer.style.opacity = opacity;
    cut.setAttribute("x", share * width);
    edge.style.display = share > 0 ? "" : "none";
    edge.style.transform = `translateX(${share * width}px)`;
  };
  return { drawn, set };
}

function range(name, least, most, changed) {
  const value = h("output");
  const input = h("input", { type: "range", min: least, max: most, value: settings[name], oninput: () => update() });
  function update() {
    settings[name] = Number(input.value);
    value.textContent = T.compare.value[name](input.value);
    changed(settings[name]);
  }
  return { input, update, node: h("label", { class: "range" }, h("span", {}, T.compare[name]), input, value) };
}

// Each view returns its nodes and is ended by `signal`.
const views = {
  lines(scene, signal) {
    const place = h("div");
    const amount = range("lines", 0, scene.found.pairs.length, () => place.replaceChildren(drawLines(scene)));
    amount.update();
    addEventListener("resize", amount.update, { signal });
    return [place, scene.found.pairs.length > 0 ? amount.node : ""];
  },
  slider(scene) {
    const { drawn, set } = drawRegistered(scene);
    const share = range("slider", 0, 100, (value) => set(1, value / 100));
    const follow = (event) => {
      if (event.buttons !== 1) return;
      const { left, width } = drawn.getBoundingClientRect();
      share.input.value = (100 * (event.clientX - left)) / width;
      share.update();
    };
    drawn.classList.add("sliding");
    ["pointerdown", "pointermove"].forEach((kind) => drawn.addEventListener(kind, follow));
    share.update();
    return [drawn, share.node];
  },
  blink(scene, signal) {
    const { drawn, set } = drawRegistered(scene);
    let [isSeen, isRunning, timer] = [true, !matchMedia("(prefers-reduced-motion: reduce)").matches, 0];
    const swap = () => { isSeen = !isSeen; set(isSeen ? 1 : 0); };
    const restart = () => {
      clearInterval(timer);
      if (isRunning) timer = setInterval(swap, settings.delay);
      toggle.textContent = isRunning ? T.compare.stop : T.compare.start;
    };
    const toggle = button("", () => { isRunning = !isRunning; restart(); });
    const delay = range("delay", 200, 2000, restart);
    set(1);
    delay.update();
    signal.addEventListener("abort", () => clearInterval(timer));
    return [drawn, row(toggle, button(T.compare.swap, swap)), delay.node];
  },
  overlay(scene) {
    const { drawn, set } = drawRegistered(scene);
    const opacity = range("overlay", 0, 100, (value) => set(value / 100));
    opacity.update();
    return [drawn, opacity.node];
  },
};

const facts = ({ inliers, places, overlap, turn, probability }) => hint([
  inliers !== null && T.compare.inliers(inliers, places),
  inliers && overlap && T.compare.overlap(overlap.query, overlap.image), turn && T.compare.turned(turn),
  probability !== null && T.compare.probability(probability)].filter(Boolean).join(" · "));

function stages(scene, signal) {
  const stage = stack();
  const renew = renewed(signal);
  const choose = (mode) => stage.replaceChildren(...views[mode](scene, renew()));
  choose(scene.found.hit.affine ? settings.mode : "lines");
  if (!scene.found.hit.affine) return [h("p", { class: "note" }, T.compare.unregistered), stage];
  const choices = Object.keys(views).map((mode) => h("label", { class: "segment" }, h("input", { type: "radio",
    name: "mode", value: mode, checked: mode === settings.mode, onchange: () => choose(settings.mode = mode) }),
  T.compare.modes[mode]));
  return [h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, T.compare.mode), choices), stage];
}

// hits, hit: the answers that can be stepped through and the first one; photos, box: the question;
// show: receives the name that is shown, or null at the end; ask: asks with other photographs.
export function openCompare({ hits, hit, photos, box, show, ask }) {
  const renew = renewed();
  const body = stack();
  const dialog = openDialog(T.compare.title, body, () => { renew(); show(null); }, "wide");

  async function load(next) {
    const signal = renew();
    hit = next;
    show(hit.name);
    const photo = photos[hit.question ?? 0];
    const asked = { name: hit.name, [photo.upload ? "upload" : "query"]: photo.upload ?? photo.name,
      box: photos.length === 1 ? box?.join(",") : null, turn: hit.turn };
    const content = stack(hint(T.compare.waiting));
    body.replaceChildren(head(photo), content);
    try {
      const found = await get("/compare", asked, signal);
      const scene = { found, sizes: [found.query.size, found.image.size],
        sources: [picture(photo, 1280), thumbnail(hit.name, 1280)] };
      content.replaceChildren(facts({ ...found.hit, probability: hit.probability }), ...stages(scene, signal),
        foot(found, asked, photo));
    } catch (error) {
      if (!signal.aborted) content.replaceChildren(notice(error, () => load(hit)));
    }
  }

  function head(photo) {
    const step = (by, sign, label) => {
      const other = hits[hits.indexOf(hit) + by];
      const focus = () => (dialog.querySelector(`.${sign}:enabled`) ?? dialog.querySelector("button")).focus();
      return signButton(label, () => { load(other); focus(); }, sign, sign, { disabled: !other });
    };
    return h("div", { class: "row between" },
      h("div", { class: "names" }, nameOf(photo.name), h("span", { class: "hint" }, T.compare.with), nameOf(hit.name)),
      row(badge(hit.verdict), judgementButtons(photo, box, hit.name), step(-1, "back", T.compare.previous),
        step(1, "forth", T.compare.next)));
  }

  function foot(found, asked, photo) {
    const address = `/compare/picture?${query({ index: server.index.name, ...asked })}`;
    const named = { ...found, index: server.index.name, query: { name: photo.name, box, ...found.query } };
    const content = JSON.stringify(named, null, 1);
    return h("div", { class: "row foot" },
      h("a", { class: "button", href: address, download: "comparison.jpg" }, icon("save"), T.compare.picture),
      button(T.compare.json, () => save("comparison.json", "application/json", content), "save"),
      button(T.compare.ask, () => ask({ photos: [{ name: hit.name }] }), "ask"));
  }

  load(hit);
}
