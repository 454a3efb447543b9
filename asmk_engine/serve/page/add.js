// Adding photographs to a writable index, in batches of one job each.
import { get, postForm, server } from "./api.js";
import { announce, entitle, h, icon, notice, row, shown, stack, title } from "./dom.js";
import { tile } from "./browse.js";
import { follow, jobProgress } from "./jobs.js";
import { fileButton } from "./question.js";
import { link, register } from "./route.js";
import { T } from "./texts.js";

const BATCH = 24;
const BATCH_BYTES = 2 ** 25;
const SHOWN = 12;
let take = () => {};
export const addFiles = (files) => take(files);

// The files of what was dropped, those of folders included.
export async function droppedFiles(items) {
  const entries = [...items].filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry instanceof File) return [entry];
  if (entry.isFile) return [await new Promise((resolve, reject) => { entry.file(resolve, reject); })];
  const reader = entry.createReader();
  const read = () => new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
  const found = [];
  for (let part = await read(); part.length > 0; part = await read()) {
    for (const one of part) found.push(...await filesOf(one));
  }
  return found;
}

register("add", (main, values, signal) => {
  entitle(T.views.add);
  const { writable } = server.index;
  const place = stack();
  main.append(stack(title(T.add.title), writable
    ? h("div", { class: "drop" }, icon("photo"), h("p", { class: "large" }, T.add.drop),
      row(fileButton(T.add.files, addFiles, "main"), fileButton(T.add.folder, addFiles, "", true)))
    : h("p", { class: "empty" }, T.add.readOnly), place));
  let isBusy = !writable;
  take = async (files) => {
    if (isBusy || files.length === 0) return;
    isBusy = true;
    await add(files, place, signal).catch((error) => signal.aborted || place.replaceChildren(notice(error)));
    isBusy = false;
  };
});

function batches(files) {
  const found = [];
  let bytes = Infinity;
  for (const file of files) {
    if (bytes + file.size > BATCH_BYTES || found.at(-1).length === BATCH) [bytes] = [0, found.push([])];
    found.at(-1).push(file);
    bytes += file.size;
  }
  return found;
}

async function add(files, place, signal) {
  const ends = new AbortController();
  const progress = jobProgress(T.add.adding(files.length), () => ends.abort());
  const [added, failures] = [[], []];
  let done = 0;
  place.replaceChildren(progress.node);
  for (const batch of batches(files)) {
    if (ends.signal.aborted) break;
    const form = new FormData();
    form.append("index", server.index.name);
    batch.forEach((file) => form.append("file", file, file.webkitRelativePath || file.name));
    progress.show({ done, total: files.length, message: T.add.sending });
    const shift = done;
    const show = (state) => progress.show({ ...state, done: shift + state.done * (batch.length / (state.total || 1)) });
    try {
      const { job } = await postForm("/add", form, AbortSignal.any([signal, ends.signal]));
      progress.start(job);
      const last = await follow(job, show, signal);
      added.push(...last.added);
      failures.push(...last.failures);
      if (last.state === "failed") failures.push({ name: T.add.rest, reason: last.message });
    } catch (error) {
      if (signal.aborted || !(ends.signal.aborted || error.status === 413)) throw error;
      if (error.status === 413) failures.push(...batch.map(({ name }) => ({ name, reason: error.message })));
    }
    done += batch.length;
  }
  const { indexes } = await get("/indexes", {}, signal);
  server.index.images = indexes.find((index) => index.name === server.index.name)?.images ?? server.index.images;
  report(place, added, failures, ends.signal.aborted);
}

function report(place, added, failures, isCancelled) {
  const said = [isCancelled && T.add.cancelled, T.add.added(added.length),
    failures.length && T.add.failed(failures.length)].filter(Boolean).join(" ");
  announce(said);
  const reasons = failures.map(({ name, reason }) =>
    h("li", {}, h("strong", {}, h("bdi", {}, shown(name))), ` ${shown(reason)}`));
  place.replaceChildren(h("p", { class: "large" }, said), h("ul", { class: "failures" }, reasons),
    h("ul", { class: "grid" }, added.slice(0, SHOWN).map((name) => tile(name, link("image", { name })))));
}
