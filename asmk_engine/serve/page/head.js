// The head of every page: the name, the views, the choice of the index.
import { server } from "./api.js";
import { h } from "./dom.js";
import { judgements } from "./judgements.js";
import { go, link } from "./route.js";
import { T } from "./texts.js";

export function drawHead(view) {
  const index = server.index;
  const marks = index ? judgements().reduce((sum, entry) => sum + entry.marks.length, 0) : 0;
  const views = ["search", "browse", "groups", "marks", index?.writable && "add"].filter(Boolean);
  const entries = views.map((name) => h("li", {}, h("a", { href: link(name), "aria-current": name === view && "page" },
    T.views[name], name === "marks" && marks > 0 && h("span", { class: "count" }, String(marks)))));
  const choice = server.indexes.length > 1 && h("select", { "aria-label": T.index, onchange: (event) => {
    server.index = server.indexes[event.target.selectedIndex];
    go(link("search"));
  } }, server.indexes.map((one) => h("option", { selected: one === index }, `${one.name} (${one.images})`)));
  document.getElementById("head").replaceChildren(h("a", { class: "skip", href: "#main" }, T.skip),
    h("a", { class: "brand", href: link("search") }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }),
      "asmk-engine"),
    h("nav", { "aria-label": T.nav }, h("ul", {}, entries, h("li", {}, h("a", { href: "/api",
      "aria-current": view === "api" && "page" }, T.views.api)))),
    choice || h("span", { class: "hint" }, index ? T.images(index.images) : ""));
}
