// One answer as a card: picture with the matched region, verdict, score, name, and what can be done with it.
import { server, thumbnail } from "./api.js";
import { h, icon, nameOf, s, shown } from "./dom.js";
import { judgementButtons } from "./judgements.js";
import { ask } from "./question.js";
import { link } from "./route.js";
import { T } from "./texts.js";

export const badge = (verdict) => verdict && h("span", { class: `badge ${verdict}` }, T.verdicts[verdict]);

const points = (region) => region.map(([x, y]) => `${x},${y}`).join(" ");

// The outline twice, so that it is seen on light and on dark photographs.
export const outline = (region) => ["casing", "line"].map((kind) =>
  s("polygon", { class: `outline ${kind}`, points: points(region) }));

function photograph(hit) {
  const image = h("img", { src: thumbnail(hit.name, 320), alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(h("span", { class: "gone" }, T.gone)));
  const region = hit.region?.length > 2 && hit.size && s("svg", { viewBox: `0 0 ${hit.size.join(" ")}` },
    outline(hit.region));
  return [image, region];
}

export function hitCard(hit, answer, question, open) {
  const photo = answer.question[hit.question ?? 0];
  const small = (label, name, action) => h("button", { type: "button", class: "plain square", "aria-label": label,
    title: label, onclick: action }, icon(name));
  const compares = server.index.verifies;
  const name = shown(hit.name);
  const spoken = [compares ? T.hits.compare(name) : name, T.verdicts[hit.verdict]].filter(Boolean).join(", ");
  return h("li", { class: "card" },
    compares
      ? h("button", { type: "button", class: "picture", "aria-label": spoken, onclick: () => open(hit) }, photograph(hit))
      : h("a", { class: "picture", "aria-label": spoken, href: link("image", { name: hit.name }) }, photograph(hit)),
    h("p", { class: "row between" }, badge(hit.verdict) ?? h("span"),
      hit.score !== null && h("span", { class: "score" }, h("span", { class: "unseen" }, T.hits.score), hit.score.toFixed(3))),
    h("a", { href: link("image", { name: hit.name }) }, nameOf(hit.name)),
    h("div", { class: "row actions" }, judgementButtons(photo, question.box, hit.name),
      h("span", { class: "push" }),
      small(T.hits.askWith(name), "ask", () => ask({ photos: [{ name: hit.name }] })),
      small(T.hits.askToo(name), "add", () => ask({ ...question, box: null,
        photos: [...question.photos, { name: hit.name }] }))));
}
