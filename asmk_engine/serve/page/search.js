// The view of a question and its answers.
import { get, picture, post, server } from "./api.js";
import { announce, button, entitle, h, hint, icon, notice, photograph, renewed, row, shown, stack, title, toast }
  from "./dom.js";
import { tiles } from "./browse.js";
import { openCompare } from "./compare.js";
import { hitCard } from "./hits.js";
import { addressOf, ask, askFiles, contentOf, fileButton, nameForm, questionOf, questionPanel, stateOf }
  from "./question.js";
import { regionEditor } from "./region.js";
import { register } from "./route.js";
import { T } from "./texts.js";

const PAGE = 30;
const MOST = 1000;
const VERDICTS = ["match", "maybe", "no"];

register("search", async (main, values, signal) => {
  const question = questionOf(values, history.state);
  const [only] = question.photos;
  if (!only) return welcome(main, signal);
  entitle(shown(only.name));
  const preview = h("div", { class: "preview" });
  const place = h("section", { class: "answers stack" });
  main.append(h("div", { class: "split" }, questionPanel(question, preview), place));
  const answers = new Answers(question, place, signal);
  const edit = ({ size }) => preview.replaceChildren(size && server.index.verifies
    ? regionEditor(only, size, question.box, (box) => answers.askRegion(box))
    : h("div", {}, photograph(picture(only, 640), shown(only.name))));
  if (question.photos.length === 1) edit(only);
  await answers.run();
  if (!answers.answer) return;
  if (question.photos.length === 1 && !only.size) edit(answers.answer.question[0]);
  answers.openCompared(values.get("compare"));
});

async function welcome(main, signal) {
  entitle(T.views.search);
  const takes = server.index.asks_photographs;
  const drop = h("div", { class: "drop" }, icon("photo"), h("p", { class: "large" }, T.ask.drop), hint(T.ask.paste),
    fileButton(T.ask.choose, (files) => askFiles(files), "main"));
  const collection = stack(h("h2", {}, T.ask.collection));
  main.append(h("div", { class: "welcome stack" }, title(T.ask.title),
    h("p", { class: "lead" }, takes ? T.ask.lead(server.index.images) : T.ask.onlyNames), takes && drop,
    nameForm((photo) => ask({ photos: [photo] })), collection));
  const found = await get("/images", { limit: 12 }, signal);
  collection.append(...tiles(found, (name) => addressOf({ photos: [{ name }] })));
}

class Answers {
  constructor(question, place, signal) {
    Object.assign(this, { question, signal, hidden: new Set(), folder: "", top: PAGE, answer: null });
    this.renew = renewed(signal);
    this.title = title(T.hits.waiting);
    this.took = hint();
    this.body = stack();
    place.append(h("div", { class: "row between" }, this.title, this.took), this.body);
  }

  // Ask again for another region, without a new entry in the history.
  askRegion(box) {
    this.question.box = box;
    history.replaceState(stateOf(this.question), "", addressOf(this.question));
    this.top = PAGE;
    this.run();
  }

  async run() {
    const signal = this.renew();
    if (this.top === PAGE) this.wait();
    try {
      this.answer = await post("/search", { ...contentOf(this.question), top: this.top }, signal);
      this.show();
    } catch (error) {
      if (signal.aborted) return;
      this.title.textContent = T.hits.none;
      this.body.replaceChildren(notice(error, () => this.run()));
    }
  }

  wait() {
    announce(T.hits.waiting);
    this.title.textContent = T.hits.waiting;
    this.took.textContent = "";
    const cards = Array.from({ length: 8 }, () =>
      h("li", { class: "card waiting" }, h("div", { class: "picture" }), h("p"), h("p")));
    this.body.replaceChildren(h("ul", { class: "grid", "aria-hidden": "true" }, cards));
  }

  show() {
    const { hits, notes, seconds, more } = this.answer;
    const matches = server.index.verifies ? hits.filter((hit) => hit.verdict === "match").length : null;
    this.title.textContent = hits.length ? T.hits.found(hits.length, matches) : T.hits.none;
    this.took.textContent = T.hits.took(Object.values(seconds ?? {}).reduce((sum, one) => sum + one, 0));
    announce(this.title.textContent);
    this.grid = h("ul", { class: "grid" });
    this.count = hint();
    const next = Math.min(this.top + PAGE, MOST);
    this.body.replaceChildren(...(notes ?? []).map((note) => h("p", { class: "note" }, shown(note))),
      hits.length ? this.filters(hits) : h("p", { class: "empty" }, T.hits.nothing), this.count, this.grid,
      more && next > this.top ? button(T.hits.more(next - this.top), () => this.more(next), null, "more") : "");
    this.fill();
  }

  async more(top) {
    const before = this.grid.children.length;
    this.top = top;
    announce(T.hits.waiting);
    await this.run();
    (this.grid.children[before] ?? this.grid.lastElementChild)?.querySelector("button, a").focus();
  }

  filters(hits) {
    const toggle = (verdict) => { this.hidden.delete(verdict) || this.hidden.add(verdict); this.fill(); };
    const toggles = VERDICTS.map((verdict) => h("label", { class: `pill ${verdict}` },
      h("input", { type: "checkbox", checked: !this.hidden.has(verdict), onchange: () => toggle(verdict) }),
      `${T.verdicts[verdict]} ${hits.filter((hit) => hit.verdict === verdict).length}`));
    const folders = [...new Set(hits.map((hit) => hit.name.slice(0, hit.name.lastIndexOf("/") + 1)))].filter(Boolean);
    const options = ["", ...folders.sort()].map((folder) =>
      h("option", { value: folder, selected: folder === this.folder }, shown(folder) || T.hits.allFolders));
    const choose = (event) => { this.folder = event.target.value; this.fill(); };
    return row(server.index.verifies && h("fieldset", { class: "row" },
      h("legend", { class: "unseen" }, T.hits.verdict), toggles),
    folders.length > 0 && h("select", { "aria-label": T.hits.folder, onchange: choose }, options));
  }

  fill() {
    const seen = this.answer.hits.filter((hit) => !this.hidden.has(hit.verdict) && hit.name.startsWith(this.folder));
    const open = (hit) => this.compare(seen, hit);
    this.grid.replaceChildren(...seen.map((hit) => hitCard(hit, this.answer, this.question, open)));
    this.count.hidden = seen.length === this.answer.hits.length;
    this.count.textContent = T.hits.filtered(seen.length);
  }

  compare(hits, hit) {
    const show = (name) => {
      const address = addressOf(this.question);
      const compared = name === null ? address : `${address}&${new URLSearchParams({ compare: name })}`;
      if (!this.signal.aborted) history.replaceState(history.state, "", compared);
    };
    openCompare({ hits, hit, photos: this.answer.question, box: this.question.box, show, ask });
  }

  openCompared(name) {
    const hit = this.answer.hits.find((one) => one.name === name);
    if (hit && server.index.verifies) this.compare(this.answer.hits, hit);
    else if (name) toast(T.hits.notAmong(shown(name)));
  }
}
