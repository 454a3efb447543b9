// The collection: its folders, its images, and one image with what is near it.
import { get, getImage, post, server, thumbnail } from "./api.js";
import { announce, button, entitle, h, hint, icon, later, moreButton, nameOf, notice, photograph, renewed, row, shown,
  stack, tell, title, toast } from "./dom.js";
import { openCompare } from "./compare.js";
import { hitCard } from "./hits.js";
import { ask } from "./question.js";
import { go, link, register } from "./route.js";
import { T } from "./texts.js";

const PAGE = 60;
const NEIGHBOURS = 12;

export const tile = (name, address, caption = null) => h("li", { class: "card" },
  h("a", { href: address }, h("span", { class: "picture" }, photograph(thumbnail(name, 320))), nameOf(name)),
  caption && hint(shown(caption)));
const toImage = (name) => link("image", { name });
const caption = (metadata) => Object.values(metadata ?? {}).map(String).filter(Boolean).join(" · ");

// Folders and images as two lists; `address` returns where the name of an image leads.
export function tiles({ folders, images }, address) {
  const below = folders.map(({ name, images: count }) => h("li", {}, h("a", { class: "button",
    href: link("browse", { folder: name }) }, icon("folder"),
  h("bdi", {}, shown(name.replace(/\/$/, "").split("/").pop())), h("span", { class: "hint" }, T.images(count)))));
  return [below.length > 0 && h("ul", { class: "row folders", "aria-label": T.browse.path }, below),
    images.length > 0 && h("ul", { class: "grid" }, images.map(({ name, metadata }) =>
      tile(name, address(name), caption(metadata))))].filter(Boolean);
}

function path(folder) {
  const parts = folder.split("/").filter(Boolean);
  const steps = parts.map((part, i) => h("li", {}, h("a", {
    href: link("browse", { folder: `${parts.slice(0, i + 1).join("/")}/` }) }, h("bdi", {}, shown(part)))));
  return h("nav", { "aria-label": T.browse.path }, h("ol", { class: "path" },
    h("li", {}, h("a", { href: link("browse") }, T.browse.all)), steps));
}

register("browse", async (main, values, signal) => {
  entitle(T.views.browse);
  const folder = values.get("folder") ?? "";
  const place = stack();
  const renew = renewed(signal);
  const find = later(() => {
    history.replaceState(null, "", link("browse", { folder, search: search.value }));
    load().catch((error) => signal.aborted || place.replaceChildren(notice(error, find)));
  }, 200);
  const search = h("input", { type: "search", id: "search", value: values.get("search"), oninput: find });
  async function load() {
    const until = renew();
    const words = { folder, search: search.value, limit: PAGE };
    const found = await get("/images", words, until).catch((error) => { if (!until.aborted) throw error; });
    if (!found) return;
    const lists = tiles(found, toImage);
    const more = moreButton(T.browse.more, found, async (after) => {
      const next = await get("/images", { ...words, after }, until);
      const added = [...tiles({ folders: [], images: next.images }, toImage)[0].children];
      lists.at(-1).append(...added);
      added[0].querySelector("a").focus();
      return next;
    });
    place.replaceChildren(hint(T.images(found.total)),
      ...(lists.length ? lists : [h("p", { class: "empty" }, search.value ? T.browse.none : T.browse.empty)]), more);
    announce(T.images(found.total));
  }
  main.append(stack(title(T.browse.title), path(folder), h("div", { class: "stack field" },
    h("label", { for: "search" }, folder ? T.browse.searchIn : T.browse.search), search), place));
  await load();
});

async function remove(name) {
  await post("/delete", { names: [name] });
  server.index.images -= 1;
  go(link("browse", { folder: name.slice(0, name.lastIndexOf("/") + 1) }));
  toast(T.browse.deleted(shown(name)), T.browse.undo, () => restore(name).catch(tell));
}

async function restore(name) {
  await post("/restore", { names: [name] });
  server.index.images += 1;
  go(toImage(name));
  announce(T.browse.restored(shown(name)));
}

register("image", async (main, values, signal) => {
  const name = values.get("name") ?? "";
  entitle(shown(name));
  const found = await getImage(name, signal);
  const step = (target, label) => target && h("a", { class: "button", href: toImage(target) }, label);
  const facts = Object.entries(found.metadata ?? {}).map(([key, value]) =>
    [h("dt", {}, shown(key)), h("dd", {}, h("bdi", {}, shown(String(value))))]);
  const others = found.group?.images.filter((other) => other !== name) ?? [];
  const near = stack(h("h2", {}, T.browse.near));
  main.append(stack(path(found.folder), title(nameOf(name)),
    row(button(T.browse.ask, () => ask({ photos: [{ name }] }), "ask", "main"), step(found.previous, T.browse.previous),
      step(found.following, T.browse.following),
      server.index.writable && button(T.browse.remove, () => remove(name).catch(tell), null, "push danger")),
    h("div", { class: "about" }, h("div", {}, photograph(thumbnail(name, 1280), shown(name))), h("dl", {}, facts)),
    others.length > 0 && stack(h("h2", {}, T.groups.number(found.group.number)), h("ul", { class: "grid" },
      others.map((other) => tile(other, toImage(other), T.kinds[found.group.kinds[other]])))), near));
  await addNeighbours(near, name, signal).catch((error) => signal.aborted || near.append(notice(error)));
});

async function addNeighbours(place, name, signal) {
  const question = { photos: [{ name }], box: null };
  const answer = await post("/search", { name: [name], top: NEIGHBOURS }, signal);
  const compared = { hits: answer.hits, photos: answer.question, box: null, show: () => {}, ask };
  const open = (hit) => openCompare({ ...compared, hit });
  place.append(answer.hits.length === 0 ? h("p", { class: "empty" }, T.hits.nothing)
    : h("ul", { class: "grid" }, answer.hits.map((hit) => hitCard(hit, answer, question, open))));
}
