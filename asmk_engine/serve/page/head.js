// The head of every page: the name, the views, the choice of the index.
import { server } from "./api.js";
import { h, shown } from "./dom.js";
import { judgements } from "./judgements.js";
import { go, link } from "./route.js";
import { T } from "./texts.js";

const BEFORE = 64;

export function drawHead(view) {
  const { index, indexes } = server;
  const marks = index ? judgements().reduce((sum, entry) => sum + entry.marks.length, 0) : 0;
  const names = ["search", "browse", index?.verifies && "groups", "marks", index?.writable && "add"].filter(Boolean);
  const entry = (name, href, count = 0) => h("li", {}, h("a", { href, "aria-current": name === view && "page" },
    T.views[name], count > 0 && h("span", { class: "count" }, String(count))));
  const choose = (event) => {
    server.index = indexes[event.target.selectedIndex];
    if (view === "api") location.assign(link("search"));
    else go(link("search"));
  };
  const skip = (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  };
  const entries = names.map((name) => entry(name, link(name), name === "marks" ? marks : 0));
  const list = h("ul", {}, entries, entry("api", "/api"));
  document.getElementById("head").replaceChildren(h("a", { class: "skip", href: "#main", onclick: skip }, T.skip),
    h("a", { class: "brand", href: link("search") },
      h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }), "asmk-engine"),
    h("nav", { "aria-label": T.nav }, list),
    indexes.length > 1 ? h("select", { "aria-label": T.index, onchange: choose }, indexes.map((one) =>
      h("option", { selected: one === index }, `${shown(one.name)} (${one.images})`)))
      : h("span", { class: "hint" }, index ? T.images(index.images) : ""));
  list.scrollLeft = (list.querySelector("[aria-current]")?.offsetLeft ?? 0) - list.offsetLeft - BEFORE;
}
