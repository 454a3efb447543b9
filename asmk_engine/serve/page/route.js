// The address says what is shown; history.state holds what an address cannot: photographs that were sent.
import { query, server } from "./api.js";
import { notice, renewed } from "./dom.js";

const views = new Map();
const renew = renewed();

// `render` receives the element to fill, the values of the address, and a signal for when another view is shown.
export const register = (name, render) => views.set(name, render);

export function link(view, values = {}) {
  const index = server.index === server.indexes[0] ? null : server.index?.name;
  const found = query({ view: view === "search" ? null : view, index, ...values });
  return found ? `/?${found}` : "/";
}

export function go(address, state = null) {
  history.pushState(state, "", address);
  show(true);
}

export async function show(isMoved) {
  const signal = renew();
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  const values = new URLSearchParams(location.search);
  server.index = server.indexes.find((index) => index.name === values.get("index")) ?? server.indexes[0];
  const view = views.has(values.get("view")) ? values.get("view") : "search";
  document.dispatchEvent(new CustomEvent("shown", { detail: view }));
  const main = document.getElementById("main");
  main.replaceChildren();
  const rendering = views.get(view)(main, values, signal);
  if (isMoved) {
    scrollTo(0, 0);
    (main.querySelector("h1") ?? main).focus();
  }
  try {
    await rendering;
  } catch (error) {
    if (!signal.aborted) main.append(notice(error, () => show(false)));
  }
}
