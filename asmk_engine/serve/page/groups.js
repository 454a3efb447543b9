// Which images show the same thing: groups of photographs, each with its copies.
import { get, post } from "./api.js";
import { announce, h, notice } from "./dom.js";
import { tile } from "./browse.js";
import { follow, jobProgress } from "./jobs.js";
import { link, register, show } from "./route.js";
import { T } from "./texts.js";

const PAGE = 20;
const WAIT = 1000;

register("groups", async (main, values, signal) => {
  document.title = T.titles.groups;
  const place = h("div", { class: "stack" });
  main.append(h("div", { class: "stack" }, h("h1", { tabindex: -1 }, T.groups.title),
    h("p", { class: "lead" }, T.groups.lead), place));
  const found = await get("/groups", { limit: PAGE }, signal);
  if (found.state === "ready") return showGroups(place, found, signal);
  if (found.state === "running") return watch(place, signal);
  const start = async () => {
    const { job } = await post("/groups", {}, signal);
    const progress = jobProgress(T.groups.finding, job);
    place.replaceChildren(progress.node);
    const end = await follow(job, progress.show, signal);
    if (end.state === "done") return show(true);
    place.replaceChildren(h("p", { class: "note" }, end.message), button);
  };
  const begin = () => start().catch((error) => signal.aborted || place.replaceChildren(notice(error, begin)));
  const button = h("button", { type: "button", class: "main", onclick: begin }, T.groups.find);
  place.append(h("p", { class: "empty" }, T.groups.none), button);
});

// Groups that are being found by someone else: only the share that is done is known.
async function watch(place, signal) {
  const bar = h("progress", { max: 1, "aria-label": T.groups.finding });
  place.append(h("p", {}, T.groups.finding), bar);
  for (;;) {
    const { state, progress } = await get("/groups", { limit: 1 }, signal);
    if (state !== "running") return show(false);
    if (progress !== null) bar.value = progress;
    await new Promise((resolve) => setTimeout(resolve, WAIT));
    signal.throwIfAborted();
  }
}

function showGroups(place, found, signal) {
  const list = h("div", { class: "stack" });
  const append = (page) => list.append(...page.groups.map(group));
  const button = h("button", { type: "button", class: "more", onclick: async () => {
    const next = await get("/groups", { after: found.next, limit: PAGE }, signal);
    append(next);
    found.next = next.next;
    button.hidden = found.next === null;
  } }, T.groups.more);
  button.hidden = found.next === null;
  append(found);
  announce(T.groups.found(found.total, found.alone));
  place.append(h("p", { class: "hint" }, T.groups.found(found.total, found.alone)), list, button);
}

function group({ number, images, photographs, kinds }) {
  const id = `group-${number}`;
  const to = (name) => link("image", { name });
  return h("section", { class: "group stack", "aria-labelledby": id },
    h("h2", { id }, T.groups.number(number), h("span", { class: "hint" }, T.groups.size(images.length, photographs.length))),
    h("ul", { class: "grid small" }, photographs.map((files) => (files.length === 1
      ? tile(files[0], to(files[0]), T.kinds[kinds[files[0]]])
      : h("li", { class: "files" }, h("p", { class: "hint" }, T.groups.files(files.length)),
        h("ul", { class: "grid small" }, files.map((name) => tile(name, to(name), T.kinds[kinds[name]]))))))));
}
