// What a person marked as right or wrong: kept in this browser for each index, exported as a ground truth or as CSV.
import { get, server } from "./api.js";
import { announce, button, entitle, h, hint, nameOf, row, save, shown, signButton, stack, table, tell, title, toast }
  from "./dom.js";
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
  const press = () => {
    const marked = markOf(name, box, image);
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", String(marked === VALUES[i])));
  };
  const toggle = (value) => mark(name, box, image, markOf(name, box, image) === value ? null : value);
  const buttons = VALUES.map((value) => signButton(T.marks[value](shown(image)),
    () => { toggle(value); press(); }, value, `plain mark ${value}`));
  press();
  return buttons;
}

async function namesBelow(folder, signal) {
  const names = [];
  let found = { next: undefined };
  while (found.next !== null) {
    found = await get("/images", { folder, after: found.next, limit: PAGE }, signal);
    names.push(...found.images.map(({ name }) => name));
  }
  for (const { name } of found.folders) names.push(...await namesBelow(name, signal));
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
  return [T.marks.fields, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

register("marks", (main, values, signal) => {
  entitle(T.views.marks);
  const ignores = h("input", { type: "checkbox", checked: true });
  const exportTruth = async () => {
    announce(T.marks.collecting);
    const names = await namesBelow("", signal);
    save("ground-truth.json", "application/json", groundTruth(judgements(), names, ignores.checked));
  };
  const forget = ({ query, box }) => {
    keep(judgements().filter((entry) => !isOf(query, box)(entry)));
    draw();
    main.querySelector("h1").focus();
  };
  const count = (entry, value) => String(entry.marks.filter(([, one]) => one === value).length);
  const line = (entry) => [nameOf(entry.query), entry.box?.join(", ") ?? T.marks.whole, ...VALUES.map((value) =>
    count(entry, value)), signButton(T.marks.forget(shown(entry.query)), () => forget(entry), "close")];
  function draw() {
    const entries = judgements();
    main.replaceChildren(stack(title(T.marks.title), h("p", { class: "lead" }, T.marks.lead),
      entries.length === 0 ? h("p", { class: "empty" }, T.marks.none) : [
        table(T.marks.title, T.marks.columns, entries.map(line)),
        h("label", { class: "check" }, ignores, T.marks.ignore),
        row(button(T.marks.truth, () => exportTruth().catch(tell), "save", "main"),
          button(T.marks.csv, () => save("judgements.csv", "text/csv", csv(judgements())), "save")),
        hint(T.marks.how)]));
  }
  draw();
});
