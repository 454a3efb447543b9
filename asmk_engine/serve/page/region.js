// The region of a photograph that is asked for: drawn, moved and resized with mouse, touch or keys.
import { picture } from "./api.js";
import { announce, h, later, shown } from "./dom.js";
import { T } from "./texts.js";

const EDGES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const SMALLEST = 0.02;
const SMALLEST_DRAWN = 0.03;
const STEPS = 50;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const limited = (value, least, most) => Math.min(Math.max(value, least), most);

// All boxes are x1, y1, x2, y2 in pixels of the upright original; `size` is its width and height.
export function moved([x1, y1, x2, y2], [dx, dy], [width, height]) {
  const [x, y] = [limited(dx, -x1, width - x2), limited(dy, -y1, height - y2)];
  return [x1 + x, y1 + y, x2 + x, y2 + y];
}

export function resized([x1, y1, x2, y2], [dx, dy], edge, [width, height]) {
  const [w, v] = [SMALLEST * width, SMALLEST * height];
  return [
    edge.includes("w") ? limited(x1 + dx, 0, x2 - w) : x1,
    edge.includes("n") ? limited(y1 + dy, 0, y2 - v) : y1,
    edge.includes("e") ? limited(x2 + dx, x1 + w, width) : x2,
    edge.includes("s") ? limited(y2 + dy, y1 + v, height) : y2,
  ];
}

const drawn = ([x, y], [u, v]) => [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];

export function regionEditor(photo, size, box, changed) {
  const [width, height] = size;
  const frame = h("div", { class: "region", hidden: true }, EDGES.map((edge) => h("span", { "data-edge": edge })));
  const stage = h("div", { class: "stage", tabindex: 0, role: "application", "aria-describedby": "region-help",
    "aria-roledescription": T.region.role, style: null },
  h("img", { src: picture(photo, 640), alt: shown(photo.name), draggable: "false" }), frame);
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.setProperty("--ratio", width / height);
  const whole = h("button", { type: "button", class: "small", onclick: () => { set(null); send(); } }, T.region.whole);

  function set(value) {
    box = value;
    frame.hidden = whole.hidden = box === null;
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
    const { left, top, width: shownWidth, height: shownHeight } = stage.getBoundingClientRect();
    return [limited((event.clientX - left) / shownWidth, 0, 1) * width,
      limited((event.clientY - top) / shownHeight, 0, 1) * height];
  }
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    const start = place(event);
    const before = box;
    const edge = event.target.dataset.edge ?? (event.target === frame ? "inside" : "none");
    const move = (next) => {
      const end = place(next);
      const way = [end[0] - start[0], end[1] - start[1]];
      if (edge === "none") set(drawn(start, end));
      else set(edge === "inside" ? moved(before, way, size) : resized(before, way, edge, size));
    };
    const end = (last) => {
      stage.removeEventListener("pointermove", move);
      const small = box && (box[2] - box[0] < SMALLEST_DRAWN * width || box[3] - box[1] < SMALLEST_DRAWN * height);
      if (last.type === "pointercancel" || (edge === "none" && small)) set(before);
      else if (box !== before) send();
    };
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener("pointermove", move);
    stage.addEventListener("lostpointercapture", end, { once: true });
    stage.addEventListener("pointercancel", (last) => { end(last); }, { once: true });
  });
  stage.addEventListener("keydown", (event) => {
    const direction = KEYS[event.key];
    if (direction) {
      const start = box ?? [width / 4, height / 4, (3 * width) / 4, (3 * height) / 4];
      const step = Math.max(width, height) / STEPS;
      const way = box ? direction.map((one) => one * step) : [0, 0];
      set(event.shiftKey ? resized(start, way, "se", size) : moved(start, way, size));
    } else if (["Delete", "Backspace"].includes(event.key) && box) {
      set(null);
    } else {
      return;
    }
    event.preventDefault();
    sendSoon();
  });
  set(box);
  return h("div", { class: "stack" }, stage,
    h("div", { class: "row between" }, h("p", { id: "region-help", class: "hint" }, T.region.help), whole));
}
