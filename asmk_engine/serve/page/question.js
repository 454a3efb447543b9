// A question: photographs of one thing, perhaps a region of the only one, and how they may be turned.
import { get, picture, postForm, server } from "./api.js";
import { h, hint, hintOf, icon, later, nameOf, photograph, shown, signButton, stack, toast } from "./dom.js";
import { go, link } from "./route.js";
import { T } from "./texts.js";

const KINDS = "image/*,.heic,.heif,.tif,.tiff,.jp2,.avif";

export function questionOf(values, state) {
  const photos = [...values.getAll("name").map((name) => ({ name })), ...(state?.uploads ?? [])];
  const box = values.get("box")?.split(",").map(Number);
  const isUsable = photos.length === 1 && box?.length === 4 && box.every(Number.isFinite);
  return { photos, box: isUsable ? box : null, rotations: values.has("rotations"), mirror: values.has("mirror") };
}

const names = (photos) => photos.filter((photo) => !photo.upload).map((photo) => photo.name);
export const addressOf = ({ photos, box, rotations, mirror }) => link("search", { name: names(photos),
  box: photos.length === 1 ? box?.join(",") : null, rotations: rotations ? 1 : null, mirror: mirror ? 1 : null });
export const stateOf = ({ photos }) => ({ uploads: photos.filter((photo) => photo.upload) });

// What the server is sent.
export const contentOf = ({ photos, box, rotations, mirror }) => ({ name: names(photos), box: box?.join(",") ?? null,
  upload: photos.map((photo) => photo.upload).filter(Boolean), rotations, mirror });
export const ask = (question) => go(addressOf(question), stateOf(question));

// Send files and ask with them, together with the photographs of `question` where one is given.
export async function askFiles(files, question = null) {
  if (!server.index?.asks_photographs) return toast(T.ask.onlyNames);
  toast(T.ask.sending(files.length));
  const uploads = [];
  const faults = [];
  for (const file of files) {
    const form = new FormData();
    form.append("file", file, file.name || "pasted.png");
    await postForm("/uploads", form).then((upload) => uploads.push(upload),
      (error) => faults.push(`${file.name}: ${error.message}. ${hintOf(error)}`));
  }
  document.getElementById("toasts").replaceChildren();
  if (uploads.length) ask({ ...question, box: null, photos: [...(question?.photos ?? []), ...uploads] });
  if (faults.length) toast(shown(faults.join(" ")));
}

export function fileButton(label, take, kind = "", isFolder = false) {
  const input = h("input", { type: "file", class: "unseen", multiple: true, accept: isFolder ? null : KINDS,
    webkitdirectory: isFolder, onchange: () => { if (input.files.length) take([...input.files]); input.value = ""; } });
  return h("label", { class: `button ${kind}` }, icon(isFolder ? "folder" : "photo"), label, input);
}

// A field for the name of an indexed image, with suggestions; other words lead to the collection.
export function nameForm(take) {
  const list = h("datalist", { id: "names" });
  const find = (limit) => get("/images", { search: field.value, limit }).catch(() => ({ images: [] }));
  const suggest = later(async () => {
    list.replaceChildren(...(await find(12)).images.map(({ name }) => h("option", { value: name })));
  }, 150);
  const field = h("input", { type: "search", id: "name", list: "names", autocomplete: "off", required: true,
    placeholder: T.ask.namePlaceholder, oninput: suggest });
  const send = async (event) => {
    event.preventDefault();
    const { images } = await find(200);
    const found = images.find(({ name }) => name === field.value) ?? (images.length === 1 && images[0]);
    if (found) take({ name: found.name });
    else go(link("browse", { search: field.value }));
  };
  return h("form", { class: "stack", onsubmit: send }, h("label", { for: "name" }, T.ask.byName),
    h("div", { class: "row whole" }, field, h("button", {}, T.ask.send)), list);
}

export function questionPanel(question, region) {
  const { photos } = question;
  const remove = (photo) => ask({ ...question, photos: photos.filter((other) => other !== photo), box: null });
  const chips = photos.map((photo) => h("li", { class: "chip" },
    h("span", { class: "small" }, photograph(picture(photo, 160))),
    nameOf(photo.name), signButton(T.ask.remove(shown(photo.name)), () => remove(photo), "close")));
  const option = (name) => h("label", { class: "check" }, h("input", { type: "checkbox", checked: question[name],
    onchange: (event) => ask({ ...question, [name]: event.target.checked }) }), T.ask[name]);
  return h("section", { class: "question stack", "aria-labelledby": "question-title" },
    h("div", { class: "row between" }, h("h2", { id: "question-title" }, T.ask.question(photos.length)),
      h("a", { href: link("search") }, T.ask.fresh)),
    region, h("ul", { class: "chips", "aria-label": T.ask.photographs }, chips),
    server.index.verifies && h("fieldset", { class: "stack" }, h("legend", {}, T.ask.turned), option("rotations"),
      option("mirror")),
    h("details", { "data-drop": "add" }, h("summary", {}, T.ask.another), stack(hint(T.ask.anotherHint),
      server.index.asks_photographs && fileButton(T.ask.choose, (files) => askFiles(files, question)),
      nameForm((photo) => ask({ ...question, box: null, photos: [...photos, photo] })))));
}
