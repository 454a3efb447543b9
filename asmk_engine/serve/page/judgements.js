// What a person marked as right or wrong: kept in this browser for each index, exported as a ground truth or as CSV.
import { get, server } from "./api.js";
import { announce, h, icon, nameOf, save, shown, toast } from "./dom.js";
import { register } from "./route.js";
import { T } from "./texts.js";

const place = () => `asmk-engine judgements ${server.index.name}`;

// [{query, box, marks: {image: "right" or "wrong"}}]; a query with another region is another entry.
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

const same = (entry, query, box) => entry.query === query && String(entry.box) === String(box);

export const markOf = (query, box, image) =>
  judgements().find((entry) => same(entry, query, box))?.marks.find(([name]) => name === image)?.[1];

export function mark(query, box, image, value) {
  const entries = judgements();
  let entry = entries.find((one) => same(one, query, box));
  if (!entry) entries.push(entry = { query, box, marks: [] });
  entry.marks = entry.marks.filter(([name]) => name !== image);
  if (value) entry.marks.push([image, value]);
  keep(entries);
}

export function judgementButtons(photo, box, image) {
  const buttons = ["right", "wrong"].map((value) => {
    const label = T.marks[value](shown(image));
    return h("button", { type: "button", class: `plain square mark ${value}`, "aria-label": label, title: label,
      onclick: () => { mark(photo.name, box, image, markOf(photo.name, box, image) === value ? null : value); update(); },
    }, icon(value));
  });
  function update() {
    const marked = markOf(photo.name, box, image);
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(marked === ["right", "wrong"][i])));
  }
  update();
  return buttons;
}

async function namesOf(folder, signal) {
  const names = [];
  const folders = [];
  for (let after = null, first = true; first || after; first = false) {
    const found = await get("/images", { folder, after, limit: 1000 }, signal);
    names.push(...found.images.map(({ name }) => name));
    if (first) folders.push(...found.folders);
    after = found.next;
  }
  for (const { name } of folders) names.push(...await namesOf(name, signal));
  return names;
}

// A ground truth names each query once: of several regions of one photograph, the one with most marks is taken.
export function groundTruth(entries, names, ignoring) {
  const known = new Set(names);
  const chosen = new Map();
  for (const entry of entries) {
    if (!(chosen.get(entry.query)?.marks.length >= entry.marks.length)) chosen.set(entry.query, entry);
  }
  const queries = [...chosen.values()].map(({ query, box, marks }) => {
    const with_ = (value) => marks.filter(([name, found]) => found === value && known.has(name)).map(([name]) => name);
    const judged = new Set([query, ...marks.map(([name]) => name)]);
    return { query, bbox: box, easy: with_("right"), hard: [],
      junk: ignoring ? names.filter((name) => !judged.has(name)) : [] };
  });
  return { imlist: names, queries };
}

export function table(entries) {
  const cell = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  const lines = entries.flatMap(({ query, box, marks }) =>
    marks.map(([image, value]) => [query, ...(box ?? ["", "", "", ""]), image, value]));
  return [["query", "x1", "y1", "x2", "y2", "image", "judgement"], ...lines]
    .map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

register("marks", (main, values, signal) => {
  document.title = T.titles.marks;
  const ignoring = h("input", { type: "checkbox", checked: true });
  const exportTruth = async () => {
    announce(T.marks.collecting);
    try {
      const truth = groundTruth(judgements(), await namesOf("", signal), ignoring.checked);
      save("ground-truth.json", "application/json", JSON.stringify(truth, null, 1));
    } catch (error) {
      toast(shown(error.message));
    }
  };
  const draw = () => {
    const entries = judgements();
    const rows = entries.map((entry) => h("tr", {}, h("td", {}, nameOf(entry.query)),
      h("td", {}, entry.box?.join(", ") ?? T.marks.whole),
      ["right", "wrong"].map((value) => h("td", { class: "number" },
        String(entry.marks.filter(([, found]) => found === value).length))),
      h("td", {}, h("button", { type: "button", class: "plain square", "aria-label": T.marks.forget(shown(entry.query)),
        onclick: () => { keep(judgements().filter((one) => !same(one, entry.query, entry.box))); draw(); } },
      icon("close")))));
    main.replaceChildren(h("div", { class: "stack" }, h("h1", { tabindex: -1 }, T.marks.title),
      h("p", { class: "lead" }, T.marks.lead),
      entries.length === 0 && h("p", { class: "empty" }, T.marks.none),
      entries.length > 0 && h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": T.marks.title },
        h("table", {}, h("thead", {}, h("tr", {}, T.marks.columns.map((one) => h("th", { scope: "col" }, one)))),
          h("tbody", {}, rows))),
      entries.length > 0 && [h("label", { class: "check" }, ignoring, T.marks.ignore),
        h("div", { class: "row" },
          h("button", { type: "button", class: "main", onclick: exportTruth }, icon("save"), T.marks.truth),
          h("button", { type: "button", onclick: () => save("judgements.csv", "text/csv", table(judgements())) },
            icon("save"), T.marks.csv)),
        h("p", { class: "hint" }, T.marks.how)]));
  };
  draw();
});
