// The region of a photograph that is asked for: drawn, moved and resized with mouse, touch or keys.
import { picture } from "./api.js";
import { announce, button, h, later, shown, stack } from "./dom.js";
import { T } from "./texts.js";

const EDGES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SMALLEST = 0.03;
const STEPS = 50;
const limited = (value, least, most) => Math.min(Math.max(value, least), most);

// All boxes are x1, y1, x2, y2 in pixels of the upright original; the size is its width and height.
const drawn = ([x, y], [u, v]) => [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];

function moved([x1, y1, x2, y2], [dx, dy], [width, height]) {
  const [x, y] = [limited(dx, -x1, width - x2), limited(dy, -y1, height - y2)];
  return [x1 + x, y1 + y, x2 + x, y2 + y];
}

function resized([x1, y1, x2, y2], [dx, dy], edge, [width, height]) {
  const [least, lowest] = [SMALLEST * width, SMALLEST * height];
  return [edge.includes("w") ? limited(x1 + dx, 0, x2 - least) : x1,
    edge.includes("n") ? limited(y1 + dy, 0, y2 - lowest) : y1,
    edge.includes("e") ? limited(x2 + dx, x1 + least, width) : x2,
    edge.includes("s") ? limited(y2 + dy, y1 + lowest, height) : y2];
}

export function regionEditor(photo, size, box, changed) {
  const [width, height] = size;
  const frame = h("div", { class: "region" }, EDGES.map((edge) => h("span", { "data-edge": edge })));
  const stage = h("div", { class: "stage", tabindex: 0, role: "application", "aria-describedby": "region-help",
    "aria-roledescription": T.region.role },
  h("img", { src: picture(photo, 640), alt: shown(photo.name), draggable: "false" }), frame);
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.setProperty("--ratio", width / height);
  const clear = button(T.region.whole, () => { set(null); send(); stage.focus(); }, null, "small");

  function set(value) {
    box = value;
    frame.hidden = clear.hidden = box === null;
    stage.setAttribute("aria-label", box ? T.region.at(...box.map(Math.round)) : T.region.none);
    if (box === null) return;
    const shares = [box[0] / width, box[1] / height, (box[2] - box[0]) / width, (box[3] - box[1]) / height];
    ["left", "top", "width", "height"].forEach((side, i) => { frame.style[side] = `${100 * shares[i]}%`; });
  }
  function send() {
    set(box?.map(Math.round) ?? null);
    announce(stage.getAttribute("aria-label"));
    changed(box);
  }
  const sendSoon = later(send, 300);

  function place(event) {
    const found = stage.getBoundingClientRect();
    return [limited((event.clientX - found.left) / found.width, 0, 1) * width,
      limited((event.clientY - found.top) / found.height, 0, 1) * height];
  }
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    const [start, before] = [place(event), box];
    const edge = event.target.dataset.edge ?? (event.target === frame ? "inside" : null);
    const ends = new AbortController();
    const move = (next) => {
      const end = place(next);
      const way = [end[0] - start[0], end[1] - start[1]];
      if (edge === null) set(drawn(start, end));
      else set(edge === "inside" ? moved(before, way, size) : resized(before, way, edge, size));
    };
    const end = (last) => {
      ends.abort();
      const isSmall = box && (box[2] - box[0] < SMALLEST * width || box[3] - box[1] < SMALLEST * height);
      if (last.type === "pointercancel" || isSmall) set(before);
      else if (box !== before) send();
    };
    stage.setPointerCapture(event.pointerId);
    [["pointermove", move], ["pointerup", end], ["pointercancel", end]].forEach(([kind, follow]) =>
      stage.addEventListener(kind, follow, { signal: ends.signal }));
  });
  stage.addEventListener("keydown", (event) => {
    const step = Math.max(width, height) / STEPS;
    const way = KEYS[event.key]?.map((one) => one * step);
    if (!way && !(box && ["Delete", "Backspace"].includes(event.key))) return;
    event.preventDefault();
    if (!way) set(null);
    else if (!box) set([width / 4, height / 4, (3 * width) / 4, (3 * height) / 4]);
    else set(event.shiftKey ? resized(box, way, "se", size) : moved(box, way, size));
    sendSoon();
  });
  set(box);
  const help = h("p", { class: "hint", id: "region-help" }, T.region.help);
  return stack(stage, h("div", { class: "row between" }, help, clear));
}
