// One answer as a card: picture with the matched region, verdict, score, name, and what can be done with it.
import { server, thumbnail } from "./api.js";
import { h, nameOf, photograph, s, shown, signButton } from "./dom.js";
import { judgementButtons } from "./judgements.js";
import { ask } from "./question.js";
import { link } from "./route.js";
import { T } from "./texts.js";

export const badge = (verdict) => verdict && h("span", { class: `badge ${verdict}` }, T.verdicts[verdict]);

// The outline twice, so that it is seen on light and on dark photographs.
export const outline = (region) => ["casing", "line"].map((kind) =>
  s("polygon", { class: `outline ${kind}`, points: region.map((point) => point.join(",")).join(" ") }));

// open: receives the hit that is to be compared.
export function hitCard(hit, answer, question, open) {
  const name = shown(hit.name);
  const image = link("image", { name: hit.name });
  const compares = server.index.verifies;
  const isOutlined = ["match", "maybe"].includes(hit.verdict) && hit.region?.length > 2;
  const label = [compares ? T.hits.compare(name) : name, T.verdicts[hit.verdict]].filter(Boolean).join(", ");
  const seen = h(compares ? "button" : "a", { class: "picture", "aria-label": label, type: compares ? "button" : null,
    href: compares ? null : image, onclick: compares ? () => open(hit) : null }, photograph(thumbnail(hit.name, 320)),
  isOutlined && s("svg", { viewBox: `0 0 ${hit.size.join(" ")}`, class: hit.verdict }, outline(hit.region)));
  const more = { ...question, box: null, photos: [...question.photos, { name: hit.name }] };
  return h("li", { class: "card" }, seen,
    h("p", { class: "row between" }, badge(hit.verdict) ?? h("span"),
      h("span", { class: "score" }, h("span", { class: "unseen" }, T.hits.score), hit.score?.toPrecision(3))),
    h("a", { href: image }, nameOf(hit.name)),
    h("div", { class: "row actions" },
      judgementButtons(answer.question[hit.question ?? 0], question.box, hit.name), h("span", { class: "push" }),
      signButton(T.hits.askWith(name), () => ask({ photos: [{ name: hit.name }] }), "ask"),
      signButton(T.hits.askToo(name), () => ask(more), "add")));
}
