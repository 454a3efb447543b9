// The collection: its folders, its images, and one image with what is near it.
import { get, getImage, post, server, thumbnail } from "./api.js";
import { announce, h, icon, later, nameOf, notice, shown, toast } from "./dom.js";
import { openCompare } from "./compare.js";
import { hitCard } from "./hits.js";
import { ask } from "./question.js";
import { go, link, register } from "./route.js";
import { T } from "./texts.js";

const PAGE = 60;
const NEIGHBOURS = 12;

export function tile(name, address, caption = null) {
  const image = h("img", { src: thumbnail(name, 320), alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(h("span", { class: "gone" }, T.gone)));
  return h("li", { class: "card" }, h("a", { href: address }, h("span", { class: "picture" }, image), nameOf(name)),
    caption && h("p", { class: "hint" }, caption));
}

// Folders and images as one list; `address` returns where the name of an image leads.
export function tiles(found, address) {
  return h("ul", { class: "grid" },
    found.folders.map(({ name, images }) => h("li", { class: "card" }, h("a", { href: link("browse", { folder: name }) },
      h("span", { class: "picture" }, icon("folder")), nameOf(name.replace(/\/$/, ""))),
    h("p", { class: "hint" }, T.images(images)))),
    found.images.map(({ name, metadata }) => tile(name, address(name), Object.values(metadata ?? {}).map(String).join(" · "))));
}

const toImage = (name) => link("image", { name });

function path(folder) {
  const parts = folder.split("/").filter(Boolean);
  const steps = parts.map((part, i) => h("li", {}, h("a", { href: link("browse", {
    folder: `${parts.slice(0, i + 1).join("/")}/` }) }, h("bdi", {}, shown(part)))));
  return h("nav", { "aria-label": T.browse.path }, h("ol", { class: "path" },
    h("li", {}, h("a", { href: link("browse") }, T.browse.all)), steps));
}

register("browse", async (main, values, signal) => {
  document.title = T.titles.browse;
  const folder = values.get("folder") ?? "";
  const place = h("div", { class: "stack" });
  let current = new AbortController();
  const search = h("input", { type: "search", id: "search", value: values.get("search"), oninput: later(() => {
    history.replaceState(null, "", link("browse", { folder, search: search.value }));
    load().catch((error) => signal.aborted || place.replaceChildren(notice(error, load)));
  }, 200) });
  async function load() {
    current.abort();
    current = new AbortController();
    const ends = AbortSignal.any([signal, current.signal]);
    const words = { folder, search: search.value, limit: PAGE };
    const found = await get("/images", words, ends).catch((error) => { if (!ends.aborted) throw error; });
    if (!found) return;
    const list = tiles(found, toImage);
    const button = h("button", { type: "button", class: "more", onclick: () => more() }, T.browse.more);
    const empty = list.children.length === 0 && h("p", { class: "empty" }, T.browse.none);
    const more = async () => {
      const next = await get("/images", { ...words, after: found.next }, ends);
      found.next = next.next;
      const added = [...tiles({ folders: [], images: next.images }, toImage).children];
      list.append(...added);
      added[0]?.querySelector("a").focus();
      button.hidden = !found.next;
    };
    button.hidden = !found.next;
    place.replaceChildren(h("p", { class: "hint" }, T.images(found.total)), empty || list, button);
    announce(T.images(found.total));
  }
  main.append(h("div", { class: "stack" }, h("h1", { tabindex: -1 }, T.browse.title), path(folder),
    h("div", { class: "stack field" }, h("label", { for: "search" }, folder ? T.browse.searchIn : T.browse.search), search),
    place));
  await load();
});

const facts = (metadata) => Object.entries(metadata).map(([name, value]) =>
  [h("dt", {}, shown(name)), h("dd", {}, h("bdi", {}, shown(String(value))))]);

async function remove(name) {
  await post("/delete", { names: [name] });
  const back = async () => {
    await post("/restore", { names: [name] });
    server.index.images += 1;
    announce(T.browse.restored(shown(name)));
    go(toImage(name));
  };
  server.index.images -= 1;
  go(link("browse", { folder: name.slice(0, name.lastIndexOf("/") + 1) }));
  toast(T.browse.deleted(shown(name)), T.browse.undo, () => back().catch(tell));
}

const tell = (error) => toast(shown(error.message));

register("image", async (main, values, signal) => {
  const name = values.get("name") ?? "";
  document.title = T.titles.image(shown(name));
  const found = await getImage(name, signal);
  const step = (target, label, sign) => target && h("a", { class: "button", href: toImage(target) },
    sign === "back" && icon(sign), label, sign === "forth" && icon(sign));
  const image = h("img", { class: "large", src: thumbnail(name, 1280), alt: shown(name) });
  image.addEventListener("error", () => image.replaceWith(h("p", { class: "empty" }, T.gone)));
  const near = h("section", { class: "stack", "aria-labelledby": "near" }, h("h2", { id: "near" }, T.browse.near));
  const others = found.group?.images.filter((other) => other !== name) ?? [];
  main.append(h("div", { class: "stack" }, path(found.folder ? `${found.folder}/` : ""),
    h("h1", { tabindex: -1 }, nameOf(name)),
    h("div", { class: "row" },
      h("button", { type: "button", class: "main", onclick: () => ask({ photos: [{ name }] }) }, icon("ask"),
        T.browse.ask),
      step(found.previous, T.browse.previous, "back"), step(found.following, T.browse.following, "forth"),
      server.index.writable && h("button", { type: "button", class: "push danger",
        onclick: () => remove(name).catch(tell) }, T.browse.remove)),
    h("div", { class: "about" }, image, h("dl", {}, facts(found.metadata ?? {}))),
    others.length > 0 && h("section", { class: "stack", "aria-labelledby": "group" },
      h("h2", { id: "group" }, T.groups.number(found.group.number)),
      h("ul", { class: "grid" }, others.map((other) => tile(other, toImage(other), T.kinds[found.group.kinds[other]])))),
    near));
  await addNeighbours(near, name, signal).catch((error) => {
    if (!signal.aborted) near.append(notice(error));
  });
});

async function addNeighbours(place, name, signal) {
  const question = { photos: [{ name }], box: null };
  const answer = await post("/search", { name: [name], top: NEIGHBOURS }, signal);
  const open = (hit) => openCompare({ hits: answer.hits, hit, photos: answer.question, box: null, show: () => {}, ask });
  place.append(answer.hits.length === 0 ? h("p", { class: "empty" }, T.hits.nothing)
    : h("ul", { class: "grid" }, answer.hits.map((hit) => hitCard(hit, answer, question, open))));
}
