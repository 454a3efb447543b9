// What a person marked as right or wrong: kept in this browser for each index, exported as a ground truth or as CSV.
import { get, server } from "./api.js";
import { announce, button, h, hint, nameOf, row, save, shown, signButton, stack, title, toast } from "./dom.js";
import { register } from "./route.js";
import { T } from "./texts.js";

const PAGE = 500;
const VALUES = ["right", "wrong"];

const place = () => `asmk-engine judgements ${server.index.name}`;

// [{query, box, marks: [[image, "right" or "wrong"]]}]; a query with another region is another entry.
export function judgements() {
  try {
    const found = JSON.parse(localStorage.getItem(place()) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function keep(entries) {
  try {
    localStorage.setItem(place(), JSON.stringify(entries.filter((entry) => entry.marks.length)));
  } catch {
    toast(T.marks.full);
  }
  document.dispatchEvent(new CustomEvent("marked"));
}

const isOf = (query, box) => (entry) => entry.query === query && String(entry.box) === String(box);

const markOf = (query, box, image) =>
  judgements().find(isOf(query, box))?.marks.find(([name]) => name === image)?.[1];

function mark(query, box, image, value) {
  const entries = judgements();
  const entry = entries.find(isOf(query, box)) ?? { query, box, marks: [] };
  entry.marks = entry.marks.filter(([name]) => name !== image);
  if (value) entry.marks.push([image, value]);
  keep([...entries.filter((other) => other !== entry), entry]);
}

export function judgementButtons({ name }, box, image) {
  const toggle = (value) => () => {
    mark(name, box, image, markOf(name, box, image) === value ? null : value);
    update();
  };
  const buttons = VALUES.map((value) =>
    signButton(T.marks[value](shown(image)), toggle(value), value, `plain mark ${value}`));
  function update() {
    const marked = markOf(name, box, image);
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", String(marked === VALUES[i])));
  }
  update();
  return buttons;
}

async function namesBelow(folder, signal) {
  const first = await get("/images", { folder, limit: PAGE }, signal);
  const names = first.images.map(({ name }) => name);
  for (let after = first.next; after !== null;) {
    const found = await get("/images", { folder, after, limit: PAGE }, signal);
    names.push(...found.images.map(({ name }) => name));
    after = found.next;
  }
  for (const { name } of first.folders) names.push(...await namesBelow(name, signal));
  return names;
}

// A ground truth names each query once: of several regions of one photograph, the one with most marks is taken.
function groundTruth(entries, names, ignores) {
  const known = new Set(names);
  const ordered = [...entries].sort((one, other) => one.marks.length - other.marks.length);
  const queries = [...new Map(ordered.map((entry) => [entry.query, entry])).values()].map(({ query, box, marks }) => {
    const judged = new Set([query, ...marks.map(([name]) => name)]);
    const right = marks.filter(([name, value]) => value === "right" && known.has(name)).map(([name]) => name);
    return { query, bbox: box, easy: right, hard: [], junk: ignores ? names.filter((name) => !judged.has(name)) : [] };
  });
  return JSON.stringify({ imlist: names, queries }, null, 1);
}

function csv(entries) {
  const cell = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const lines = entries.flatMap(({ query, box, marks }) =>
    marks.map(([image, value]) => [query, ...(box ?? ["", "", "", ""]), image, value]));
  return [["query", "x1", "y1", "x2", "y2", "image", "judgement"], ...lines]
    .map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

register("marks", (main, values, signal) => {
  document.title = T.titles.marks;
  const ignores = h("input", { type: "checkbox", checked: true });
  const exportTruth = async () => {
    announce(T.marks.collecting);
    try {
      const truth = groundTruth(judgements(), await namesBelow("", signal), ignores.checked);
      save("ground-truth.json", "application/json", truth);
    } catch (error) {
      if (!signal.aborted) toast(shown(error.message));
    }
  };
  const forget = ({ query, box }) => {
    keep(judgements().filter((entry) => !isOf(query, box)(entry)));
    draw();
    main.querySelector("h1").focus();
  };
  const line = (entry) => h("tr", {}, h("td", {}, nameOf(entry.query)), h("td", {}, entry.box?.join(", ") ?? T.marks.whole),
    VALUES.map((value) => h("td", { class: "number" }, String(entry.marks.filter(([, one]) => one === value).length))),
    h("td", {}, signButton(T.marks.forget(shown(entry.query)), () => forget(entry), "close")));
  const table = (entries) => h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": T.marks.title },
    h("table", {}, h("thead", {}, h("tr", {}, T.marks.columns.map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, entries.map(line))));
  function draw() {
    const entries = judgements();
    main.replaceChildren(stack(title(T.marks.title), h("p", { class: "lead" }, T.marks.lead),
      entries.length === 0 ? h("p", { class: "empty" }, T.marks.none) : [table(entries),
        h("label", { class: "check" }, ignores, T.marks.ignore),
        row(button(T.marks.truth, exportTruth, "save", "main"),
          button(T.marks.csv, () => save("judgements.csv", "text/csv", csv(judgements())), "save")),
        hint(T.marks.how)]));
  }
  draw();
});
