// Adding photographs to a writable index, in batches of one job each.
import { get, postForm, server } from "./api.js";
import { announce, h, icon, notice, shown } from "./dom.js";
import { fileButton } from "./question.js";
import { follow, jobProgress } from "./jobs.js";
import { link, register } from "./route.js";
import { tile } from "./browse.js";
import { T } from "./texts.js";

const BATCH = 24;
const SHOWN = 12;
let take = null;

// The files of what was dropped, those of folders included, each with its path below what was dropped.
export async function droppedFiles(items) {
  const entries = [...items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry instanceof File) return [entry];
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
    return [Object.assign(file, { path: entry.fullPath.replace(/^\//, "") })];
  }
  const reader = entry.createReader();
  const read = () => new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
  const found = [];
  for (let part = await read(); part.length > 0; part = await read()) {
    for (const one of part) found.push(...await filesOf(one));
  }
  return found;
}

export const addFiles = (files) => take?.(files);

const pathOf = (file) => file.path || file.webkitRelativePath || file.name;

register("add", (main, values, signal) => {
  document.title = T.titles.add;
  const place = h("div", { class: "stack" });
  const writable = server.index.writable;
  main.append(h("div", { class: "stack" }, h("h1", { tabindex: -1 }, T.add.title),
    writable ? h("div", { class: "drop" }, icon("photo"), h("p", { class: "large" }, T.add.drop),
      h("div", { class: "row" }, fileButton(T.add.files, addFiles, { main: true }),
        fileButton(T.add.folder, addFiles, { folder: true }))) : h("p", { class: "empty" }, T.add.readOnly),
    place));
  let busy = false;
  take = async (files) => {
    if (busy || !writable || files.length === 0) return;
    busy = true;
    await add(files, place, signal).catch((error) => signal.aborted || place.append(notice(error)));
    busy = false;
  };
});

async function add(files, place, signal) {
  const end = new AbortController();
  const progress = jobProgress(T.add.adding(files.length), null, () => end.abort());
  const total = { added: [], failures: [] };
  place.replaceChildren(progress.node);
  let cancelled = false;
  try {
    for (let start = 0; start < files.length && !end.signal.aborted; start += BATCH) {
      const form = new FormData();
      form.append("index", server.index.name);
      files.slice(start, start + BATCH).forEach((file) => form.append("file", file, pathOf(file)));
      progress.show({ done: start, total: files.length, message: T.add.sending });
      const { job } = await postForm("/add", form, AbortSignal.any([signal, end.signal]));
      progress.start(job);
      const last = await follow(job, (state) =>
        progress.show({ ...state, done: start + state.done, total: files.length }), signal);
      total.added.push(...last.added);
      total.failures.push(...last.failures);
      if (last.state === "failed") total.failures.push({ name: T.add.batch, reason: last.message });
      cancelled ||= last.state === "cancelled";
    }
  } catch (error) {
    if (!end.signal.aborted || signal.aborted) throw error;
  }
  server.index.images = (await get("/indexes", {}, signal)).indexes
    .find((index) => index.name === server.index.name)?.images ?? server.index.images;
  report(place, total, cancelled || end.signal.aborted);
}

function report(place, { added, failures }, cancelled) {
  const said = [cancelled && T.add.cancelled, T.add.added(added.length), failures.length && T.add.failed(failures.length)]
    .filter(Boolean).join(" ");
  announce(said);
  place.replaceChildren(h("p", { class: "large" }, said),
    failures.length > 0 && h("ul", { class: "failures" }, failures.map(({ name, reason }) => h("li", {},
      h("strong", {}, h("bdi", {}, shown(name))), ` ${shown(reason)}`))) || "",
    added.length > 0 && h("ul", { class: "grid" }, added.slice(0, SHOWN).map((name) =>
      tile(name, link("image", { name })))) || "");
}
