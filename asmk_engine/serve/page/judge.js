// The page of an audit: one question after the other, answered by buttons or keys, for one judge at a time.
import { get, login, post } from "./api.js";
import { announce, button, h, hint, notice, row, shown, stack, tell, title, toast } from "./dom.js";
import { T } from "./texts.js";

const ANSWERS = ["same", "different", "unsure"];
const KEYS = { s: "same", d: "different", u: "unsure" };
const PLACE = "asmk-engine judge";
const main = document.getElementById("main");
let judge = "";
let questions = [];
let at = 0;
let isMarked = false;
let sending = false;

const answered = () => questions.filter((one) => one.answer).length;
const nextOpen = (from) => {
  const order = [...questions.keys()].map((place) => (place + from) % questions.length);
  return order.find((place) => !questions[place].answer) ?? -1;
};

function about(question) {
  if (question.kind === "class") return T.judge.about(shown(question.name), question.images);
  return [h("bdi", {}, shown(question.query)), " / ", h("bdi", {}, shown(question.image)), " ",
    h("span", { class: "hint" }, T.judge.label(shown(question.label)))];
}

function draw() {
  if (questions.length === 0) return main.replaceChildren(stack(title(T.judge.title), h("p", {}, T.judge.none)));
  const question = questions[at];
  const choice = (answer) => h("button", { type: "button", "data-answer": answer, "aria-keyshortcuts": answer[0],
    "aria-pressed": String(question.answer === answer), onclick: () => answerWith(answer) }, T.judge.answers[answer]);
  const isPair = question.kind === "pair";
  const picture = h("img", { src: `/pictures/${question.key}${isPair && isMarked ? "/match" : ""}`, alt: T.judge.alt,
    class: "judged" });
  const marks = h("button", { type: "button", "aria-keyshortcuts": "m", "aria-pressed": String(isMarked),
    onclick: mark }, T.judge.marks);
  main.replaceChildren(stack(title(question.kind === "class" ? T.judge.classTitle : T.judge.title),
    h("p", { class: "asked" }, about(question)), picture,
    row(ANSWERS.map(choice), button(T.judge.back, () => step(-1)), button(T.judge.forth, () => step(1)),
      isPair ? marks : null),
    h("progress", { max: questions.length, value: answered(), "aria-label": T.judge.done }),
    hint(T.progress(answered(), questions.length), " ", T.judge.of(shown(judge)), " ",
      button(T.judge.other, askName, null, "plain")), hint(T.judge.keys)));
  const following = questions[nextOpen(at + 1)] ?? questions[(at + 1) % questions.length];
  new Image().src = `/pictures/${following.key}`;
  announce(T.progress(at + 1, questions.length));
}

const show = (place) => { at = place; isMarked = false; draw(); };
const step = (by) => show((at + by + questions.length) % questions.length);
const mark = () => { isMarked = !isMarked && questions[at].kind === "pair"; draw(); };

async function answerWith(answer) {
  if (sending || questions.length === 0) return;
  sending = true;
  const question = questions[at];
  try {
    await post("/judgements", { key: question.key, judge, answer });
    question.answer = answer;
    const open = nextOpen(at + 1);
    if (open < 0) toast(T.judge.finished);
    show(open >= 0 ? open : at);
  } catch (error) {
    tell(error);
  } finally {
    sending = false;
  }
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, dialog");
  if (!judge || questions.length === 0 || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (KEYS[key]) answerWith(KEYS[key]);
  else if (key === "m") mark();
  else if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else return;
  event.preventDefault();
});

async function load() {
  try {
    ({ questions } = await get("/questions", { judge }));
    show(Math.max(0, nextOpen(0)));
    main.querySelector("h1").focus();
  } catch (error) {
    main.replaceChildren(notice(error, load));
  }
}

function askName() {
  judge = "";
  const name = h("input", { id: "name", autocomplete: "nickname", required: true, maxlength: 80 });
  name.value = localStorage.getItem(PLACE) ?? "";
  const send = (event) => {
    event.preventDefault();
    judge = name.value.trim();
    if (!judge) return;
    localStorage.setItem(PLACE, judge);
    load();
  };
  main.replaceChildren(stack(title(T.judge.title), h("form", { class: "stack", onsubmit: send },
    h("label", { for: "name" }, T.judge.name), name, hint(T.judge.why), row(h("button", { class: "main" }, T.judge.begin)))));
  name.focus();
}

async function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(history.state, "", location.pathname + location.search);
    await login(token).catch((error) => toast(error.status === 401 ? T.signIn.refused : error.message));
  }
  askName();
}

start();
