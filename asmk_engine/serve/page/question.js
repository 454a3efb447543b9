// A question: photographs of one thing, perhaps a region of the only one, and how they may be turned.
import { get, picture, postForm, server } from "./api.js";
import { h, icon, later, nameOf, shown, toast } from "./dom.js";
import { go, link } from "./route.js";
import { T } from "./texts.js";

const KINDS = "image/*,.heic,.heif,.tif,.tiff,.jp2,.avif";

export function questionOf(values, state) {
  const photos = [...values.getAll("name").map((name) => ({ name })), ...(state?.uploads ?? [])];
  const box = values.get("box")?.split(",").map(Number);
  const usable = photos.length === 1 && box?.length === 4 && box.every(Number.isFinite);
  return { photos, box: usable ? box : null, rotations: values.has("rotations"), mirror: values.has("mirror") };
}

export const addressOf = ({ photos, box, rotations, mirror }) => link("search", {
  name: photos.filter((photo) => !photo.upload).map((photo) => photo.name),
  box: photos.length === 1 ? box?.join(",") : null, rotations: rotations ? 1 : null, mirror: mirror ? 1 : null,
});

export const stateOf = ({ photos }) => ({ uploads: photos.filter((photo) => photo.upload) });

export const ask = (question) => go(addressOf(question), stateOf(question));

export const contentOf = ({ photos, box, rotations, mirror }) => ({
  name: photos.filter((photo) => !photo.upload).map((photo) => photo.name),
  upload: photos.map((photo) => photo.upload).filter(Boolean),
  box: box?.join(",") ?? null, rotations, mirror,
});

// Send files and ask with them, together with the photographs of `question` where one is given.
export async function askFiles(files, question = null) {
  if (!server.index?.asks_photographs) return toast(T.ask.onlyNames);
  toast(T.ask.sending(files.length));
  const uploads = [];
  const faults = [];
  for (const file of files) {
    const form = new FormData();
    form.append("file", file, file.name || "pasted.png");
    try {
      uploads.push(await postForm("/uploads", form));
    } catch (error) {
      faults.push(`${error.message}. ${T.hints[error.status] ?? ""}`);
    }
  }
  document.getElementById("toasts").replaceChildren();
  if (faults.length) toast(shown(faults.join(" ")));
  if (uploads.length) ask({ ...question, box: null, photos: [...(question?.photos ?? []), ...uploads] });
}

export function fileButton(label, take, { main = false, folder = false } = {}) {
  const input = h("input", { type: "file", class: "unseen", multiple: true, accept: folder ? null : KINDS,
    webkitdirectory: folder, onchange: () => { if (input.files.length) take([...input.files]); input.value = ""; } });
  return h("label", { class: main ? "button main" : "button" }, icon(folder ? "folder" : "photo"), label, input);
}

// A field for the name of an indexed image, with suggestions; other words lead to the collection.
export function nameForm(label, take) {
  const list = h("datalist", { id: "names" });
  const suggest = later(async () => {
    const found = await get("/images", { search: field.value, limit: 12 }).catch(() => ({ images: [] }));
    list.replaceChildren(...found.images.map(({ name }) => h("option", { value: name })));
  }, 150);
  const field = h("input", { type: "search", id: "name", list: "names", autocomplete: "off", required: true,
    placeholder: T.ask.namePlaceholder, oninput: suggest });
  const send = async (event) => {
    event.preventDefault();
    const { images } = await get("/images", { search: field.value, limit: 200 }).catch(() => ({ images: [] }));
    if (images.some(({ name }) => name === field.value)) take({ name: field.value });
    else if (images.length === 1) take({ name: images[0].name });
    else go(link("browse", { search: field.value }));
  };
  return h("form", { class: "stack", onsubmit: send }, h("label", { for: "name" }, label),
    h("div", { class: "row whole" }, field, h("button", {}, T.ask.send)), list);
}

const chip = (photo, question) => h("li", { class: "chip" }, h("img", { src: picture(photo, 160), alt: "" }),
  nameOf(photo.name),
  h("button", { type: "button", class: "plain square", "aria-label": T.ask.remove(shown(photo.name)),
    onclick: () => ask({ ...question, photos: question.photos.filter((other) => other !== photo), box: null }) },
  icon("close")));

const option = (name, question) => h("label", { class: "check" },
  h("input", { type: "checkbox", checked: question[name],
    onchange: (event) => ask({ ...question, [name]: event.target.checked }) }), T.ask[name]);

export function questionPanel(question, region) {
  const more = (photo) => ask({ ...question, box: null, photos: [...question.photos, photo] });
  const verifies = server.index.verifies;
  return h("section", { class: "question stack", "aria-labelledby": "question-title" },
    h("div", { class: "row between" }, h("h2", { id: "question-title" }, T.ask.question(question.photos.length)),
      h("a", { href: link("search") }, T.ask.fresh)),
    region,
    h("ul", { class: "chips", "aria-label": T.ask.photographs },
      question.photos.map((photo) => chip(photo, question))),
    verifies && h("fieldset", { class: "stack" }, h("legend", {}, T.ask.turned), option("rotations", question),
      option("mirror", question)),
    h("details", { "data-drop": "add" }, h("summary", {}, T.ask.another),
      h("div", { class: "stack" }, h("p", { class: "hint" }, T.ask.anotherHint),
        server.index.asks_photographs && fileButton(T.ask.choose, (files) => askFiles(files, question)),
        nameForm(T.ask.byName, more))));
}
