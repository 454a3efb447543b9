// The start of the page, and what is true of every view: links, dropped and pasted files.
import { get, login, server } from "./api.js";
import { addFiles, droppedFiles } from "./add.js";
import { notice, toast } from "./dom.js";
import { drawHead } from "./head.js";
import { askFiles, questionOf } from "./question.js";
import { go, show } from "./route.js";
import { T } from "./texts.js";
import "./groups.js";
import "./search.js";

let view = "search";

async function start() {
  drawHead(view);
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(history.state, "", location.pathname + location.search);
    await login(token).catch((error) => toast(error.status === 401 ? T.signIn.refused : error.message));
  }
  try {
    Object.assign(server, await get("/indexes"));
    await show(false);
  } catch (error) {
    document.getElementById("main").replaceChildren(notice(error, start));
  }
}

function take(files, target) {
  const isMore = target.closest?.("[data-drop=add]");
  if (files.length === 0) return;
  if (view === "add") addFiles(files);
  else askFiles(files, isMore ? questionOf(new URLSearchParams(location.search), history.state) : null);
}

document.addEventListener("shown", (event) => { view = event.detail; drawHead(view); });
document.addEventListener("marked", () => drawHead(view));
addEventListener("popstate", () => server.index && show(true));

document.addEventListener("click", (event) => {
  const address = event.target.closest("a[href]")?.getAttribute("href") ?? "";
  const isOther = event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (isOther || !server.index || !(address === "/" || address.startsWith("/?"))) return;
  event.preventDefault();
  go(address);
});

const hasFiles = (event) => event.dataTransfer.types.includes("Files");

document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
document.addEventListener("drop", async (event) => {
  document.body.classList.remove("dragging");
  if (!hasFiles(event)) return;
  event.preventDefault();
  take(await droppedFiles(event.dataTransfer.items), event.target);
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length === 0) return;
  event.preventDefault();
  take(files, event.target);
});

start();
