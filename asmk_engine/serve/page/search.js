// The view of a question and its answers.
import { get, picture, post, server } from "./api.js";
import { announce, h, icon, notice, shown, toast } from "./dom.js";
import { openCompare } from "./compare.js";
import { hitCard } from "./hits.js";
import { addressOf, ask, askFiles, contentOf, fileButton, nameForm, questionOf, questionPanel, stateOf } from
  "./question.js";
import { regionEditor } from "./region.js";
import { register } from "./route.js";
import { T } from "./texts.js";
import { tiles } from "./browse.js";

const PAGE = 30;
const MOST = 1000;
const VERDICTS = ["match", "maybe", "no"];

register("search", async (main, values, signal) => {
  const question = questionOf(values, history.state);
  if (question.photos.length === 0) return welcome(main, signal);
  document.title = T.titles.question(shown(question.photos[0].name));
  const preview = h("div", { class: "preview" });
  const list = h("section", { class: "answers stack", "aria-labelledby": "answers-title" });
  main.append(h("div", { class: "split" }, questionPanel(question, preview), list));
  const answers = new Answers(question, list, signal);
  const editRegion = ([photo]) => preview.replaceChildren(
    photo.size && server.index.verifies
      ? regionEditor(photo, photo.size, question.box, (box) => answers.askRegion(box))
      : h("img", { src: picture(photo, 640), alt: shown(photo.name) }));
  if (question.photos.length === 1) editRegion(question.photos);
  const answer = await answers.run();
  if (question.photos.length === 1 && !question.photos[0].size && answer) editRegion(answer.question);
  answers.openCompared(values.get("compare"));
});

async function welcome(main, signal) {
  document.title = T.titles.search;
  const drop = h("div", { class: "drop" }, icon("photo"), h("p", { class: "large" }, T.ask.drop),
    h("p", { class: "hint" }, T.ask.paste), fileButton(T.ask.choose, (files) => askFiles(files), { main: true }));
  const collection = h("section", { class: "stack", "aria-labelledby": "collection-title" },
    h("h2", { id: "collection-title" }, T.ask.collection));
  main.append(h("div", { class: "welcome stack" }, h("h1", { tabindex: -1 }, T.ask.title),
    h("p", { class: "lead" }, server.index.asks_photographs ? T.ask.lead(server.index.images) : T.ask.onlyNames),
    server.index.asks_photographs && drop, nameForm(T.ask.byName, (photo) => ask({ photos: [photo] })), collection));
  const found = await get("/images", { limit: 12 }, signal);
  collection.append(tiles(found, (name) => addressOf({ photos: [{ name }] })));
}

class Answers {
  constructor(question, place, signal) {
    Object.assign(this, { question, place, signal, hidden: new Set(), folder: "", top: PAGE, answer: null });
    this.current = new AbortController();
  }

  // Ask again for another region, without a new entry in the history.
  askRegion(box) {
    this.question.box = box;
    history.replaceState(stateOf(this.question), "", addressOf(this.question));
    this.top = PAGE;
    this.run();
  }

  async run() {
    this.current.abort();
    this.current = new AbortController();
    if (this.top === PAGE) this.wait();
    const signal = AbortSignal.any([this.signal, this.current.signal]);
    try {
      this.answer = await post("/search", { ...contentOf(this.question), top: this.top }, signal);
      this.show();
    } catch (error) {
      if (signal.aborted) return null;
      this.place.replaceChildren(h("h1", { id: "answers-title", tabindex: -1 }, T.hits.none),
        notice(error, () => this.run()));
      return null;
    }
    return this.answer;
  }

  wait() {
    announce(T.hits.waiting);
    const cards = Array.from({ length: 8 }, () => h("li", { class: "card waiting" }, h("div", { class: "picture" }),
      h("p"), h("p")));
    this.place.replaceChildren(h("h1", { id: "answers-title", tabindex: -1 }, T.hits.waiting),
      h("ul", { class: "grid", "aria-hidden": "true" }, cards));
  }

  show() {
    const { hits, notes, seconds, more } = this.answer;
    const matches = hits.filter((hit) => hit.verdict === "match").length;
    const summary = hits.length ? T.hits.found(hits.length, server.index.verifies ? matches : null) : T.hits.none;
    announce(summary);
    this.grid = h("ul", { class: "grid" });
    this.count = h("p", { class: "hint" });
    const next = Math.min(this.top + PAGE, MOST);
    const button = more && next > this.top && h("button", { type: "button", class: "more", onclick: () => this.more(next) },
      T.hits.more(next - this.top));
    this.place.replaceChildren(
      h("div", { class: "row between" }, h("h1", { id: "answers-title", tabindex: -1 }, summary),
        h("p", { class: "hint" }, T.hits.took(Object.values(seconds ?? {}).reduce((sum, one) => sum + one, 0)))),
      h("div", {}, (notes ?? []).map((note) => h("p", { class: "note" }, shown(note)))),
      hits.length ? this.filters(hits) : h("p", { class: "empty" }, T.hits.nothing), this.grid, this.count, button || "");
    this.fill();
  }

  async more(top) {
    const before = this.answer.hits.length;
    this.top = top;
    await this.run();
    this.grid.children[Math.min(before, this.grid.children.length - 1)]?.querySelector("button, a")?.focus();
  }

  filters(hits) {
    const count = (verdict) => hits.filter((hit) => hit.verdict === verdict).length;
    const toggles = VERDICTS.map((verdict) => h("label", { class: `pill ${verdict}` },
      h("input", { type: "checkbox", checked: !this.hidden.has(verdict), onchange: (event) => {
        this.hidden[event.target.checked ? "delete" : "add"](verdict);
        this.fill();
      } }), `${T.verdicts[verdict]} ${count(verdict)}`));
    const folders = [...new Set(hits.map((hit) => hit.name.slice(0, hit.name.lastIndexOf("/") + 1)))].sort();
    const choose = (event) => { this.folder = event.target.value; this.fill(); };
    const options = ["", ...folders.filter(Boolean)].map((folder) =>
      h("option", { value: folder, selected: folder === this.folder }, shown(folder) || T.hits.allFolders));
    return h("div", { class: "row" },
      server.index.verifies && h("fieldset", { class: "row" }, h("legend", { class: "unseen" }, T.hits.verdict), toggles),
      folders.length > 1 && h("select", { "aria-label": T.hits.folder, onchange: choose }, options));
  }

  fill() {
    const seen = this.answer.hits.filter((hit) => !this.hidden.has(hit.verdict) && hit.name.startsWith(this.folder));
    const open = (hit) => this.compare(seen, hit);
    this.grid.replaceChildren(...seen.map((hit) => hitCard(hit, this.answer, this.question, open)));
    this.count.textContent = seen.length < this.answer.hits.length ? T.hits.filtered(seen.length) : "";
    this.count.hidden = !this.count.textContent;
  }

  compare(hits, hit) {
    const address = (name) => {
      const base = addressOf(this.question);
      return name === null ? base : `${base}&${new URLSearchParams({ compare: name })}`;
    };
    const show = (name) => history.replaceState(history.state, "", address(name));
    openCompare({ hits, hit, photos: this.answer.question, box: this.question.box, show, ask: (other) => ask(other) });
  }

  openCompared(name) {
    const hit = name && this.answer?.hits.find((one) => one.name === name);
    if (hit && server.index.verifies) this.compare(this.answer.hits, hit);
    else if (name && this.answer) toast(T.hits.notAmong(shown(name)));
  }
}
