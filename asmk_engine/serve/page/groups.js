// Which images show the same thing: groups of photographs, each with its copies.
import { get, post } from "./api.js";
import { announce, button, entitle, h, hint, moreButton, notice, shown, stack, title } from "./dom.js";
import { tile } from "./browse.js";
import { follow, jobProgress } from "./jobs.js";
import { link, register, show } from "./route.js";
import { T } from "./texts.js";

const PAGE = 20;

register("groups", async (main, values, signal) => {
  entitle(T.views.groups);
  const place = stack();
  main.append(stack(title(T.groups.title), h("p", { class: "lead" }, T.groups.lead), place));
  const found = await get("/groups", { limit: PAGE }, signal);
  if (found.state === "ready") showGroups(place, found, signal);
  else if (found.job) await watch(found.job, place, signal);
  else offer(place, signal);
});

function offer(place, signal, said = T.groups.none) {
  const find = () => post("/groups", {}, signal).then(({ job }) => watch(job, place, signal))
    .catch((error) => signal.aborted || place.replaceChildren(notice(error, find)));
  place.replaceChildren(h("p", { class: "empty" }, said), button(T.groups.find, find, null, "main"));
}

async function watch(job, place, signal) {
  const progress = jobProgress(T.groups.finding);
  place.replaceChildren(progress.node);
  progress.start(job);
  const end = await follow(job, progress.show, signal);
  if (end.state === "done") show(true);
  else offer(place, signal, shown(end.message));
}

function showGroups(place, found, signal) {
  const list = stack(found.groups.map(group));
  const said = T.groups.found(found.total, found.alone);
  announce(said);
  place.append(hint(said), list, moreButton(T.groups.more, found, async (after) => {
    const next = await get("/groups", { after, limit: PAGE }, signal);
    list.append(...next.groups.map(group));
    return next;
  }));
}

function group({ number, images, photographs, kinds }) {
  const file = (name) => tile(name, link("image", { name }), T.kinds[kinds[name]]);
  const files = (names) => (names.length === 1 || photographs.length === 1 ? names.map(file) : h("li", { class: "files" },
    hint(T.groups.files(names.length)), h("ul", { class: "grid small" }, names.map(file))));
  return h("section", { class: "group stack", "aria-labelledby": `group-${number}` },
    h("h2", { id: `group-${number}` }, T.groups.number(number),
      h("span", { class: "hint" }, T.groups.size(images.length, photographs.length))),
    h("ul", { class: "grid small" }, photographs.map(files)));
}
