// Building nodes. Data becomes text nodes and attributes, never markup: names of images are hostile input.
import { T } from "./texts.js";

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  add: "M12 5v14M5 12h14",
  ask: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.2 15.2 20 20",
  back: "M15 5l-7 7 7 7",
  close: "M6 6l12 12M18 6 6 18",
  folder: "M3 6v12a1.5 1.5 0 0 0 1.5 1.5h15A1.5 1.5 0 0 0 21 18V9a1.5 1.5 0 0 0-1.5-1.5H12l-2-3H4.5A1.5 1.5 0 0 0 3 6z",
  forth: "M9 5l7 7-7 7",
  photo: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.2h.01",
  right: "M5 12.5l4.5 4.5L19 7.5",
  save: "M12 4v11M7.5 11l4.5 4.5 4.5-4.5M5 19.5h14",
  wrong: "M7 7l10 10M17 7 7 17",
};

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if ((value ?? false) === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => (child ?? false) !== false));
  return node;
}

export const h = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);
export const stack = (...children) => h("div", { class: "stack" }, children);
export const row = (...children) => h("div", { class: "row" }, children);
export const hint = (...children) => h("p", { class: "hint" }, children);
export const title = (...children) => h("h1", { tabindex: -1 }, children);
export const entitle = (text) => { document.title = T.title(text); };
export const icon = (sign) =>
  s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: ICONS[sign] }));
export const button = (label, onclick, sign = null, kind = null) =>
  h("button", { type: "button", class: kind, onclick }, sign && icon(sign), label);
export const signButton = (label, onclick, sign, kind = "plain", more = {}) => h("button",
  { type: "button", class: `square ${kind}`, "aria-label": label, title: label, onclick, ...more }, icon(sign));

// Control characters become visible signs, and signs that turn the direction of the text after them are replaced.
export const shown = (name) =>
  name.replace(/[\u0000-\u001f]/g, (sign) => String.fromCharCode(0x2400 + sign.charCodeAt(0)))
    .replace(/[\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

export function nameOf(name) {
  const place = name.lastIndexOf("/") + 1;
  return h("span", { class: "name", title: shown(name) }, h("bdi", {}, shown(name.slice(place) || name)),
    place > 0 && place < name.length && h("bdi", { class: "folder" }, shown(name.slice(0, place))));
}

// Rows of cells, which scroll sideways where they do not fit.
export const table = (label, columns, rows) => h("div",
  { class: "scroll", tabindex: 0, role: "group", "aria-label": label },
  h("table", {}, h("thead", {}, h("tr", {}, columns.map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));

// A photograph, or in place of all that its parent holds, that there is none.
export function photograph(src, alt = "") {
  const onerror = () => image.parentElement?.replaceChildren(h("span", { class: "gone" }, T.gone));
  const image = h("img", { src, alt, loading: "lazy", onerror });
  return image;
}

export const announce = (text) => { document.getElementById("live").textContent = text; };

export function toast(text, label, action) {
  const close = () => note.remove();
  const note = h("p", { class: "toast" }, h("span", {}, text),
    label && button(label, () => { close(); action(); }, null, "plain"), signButton(T.close, close, "close"));
  document.getElementById("toasts").replaceChildren(note);
}

export const tell = (error) => error.name === "AbortError" || toast(shown(error.message));
export const hintOf = (error) => T.hints[error.status] ?? (error.status >= 500 ? T.hints[500] : "");
export const notice = (error, again) => h("div", { class: "notice", role: "alert" },
  h("p", {}, h("strong", {}, shown(error.message))), h("p", {}, hintOf(error)), again && button(T.again, again));

// A modal dialog: the browser keeps the focus inside and returns it to where it was.
export function openDialog(label, body, closed = () => {}, kind = null) {
  const close = () => { dialog.remove(); closed(); };
  const dialog = h("dialog", { class: kind, "aria-labelledby": "dialog-title", onclose: close },
    h("div", { class: "row between" }, h("h2", { id: "dialog-title" }, label),
      signButton(T.close, () => dialog.close(), "close")), body);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export function save(file, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  h("a", { href: address, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// A button that is there while `found.next` says that there is more; `load` shows what follows it and returns it.
export function moreButton(label, found, load) {
  const more = button(label, () => load(found.next).then(({ next }) => update(next)).catch(tell), null, "more");
  const update = (next) => { more.hidden = !(found.next = next); };
  update(found.next);
  return more;
}

export function later(action, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

// A function that returns a new signal and aborts the one before; all end with `signal`.
export function renewed(signal = null) {
  let current = new AbortController();
  return () => {
    current.abort();
    current = new AbortController();
    return AbortSignal.any([current.signal, signal].filter(Boolean));
  };
}
