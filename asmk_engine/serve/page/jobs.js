// Work that the server does in the background, followed by its events.
import { get, post } from "./api.js";
import { button, h, hint, shown } from "./dom.js";
import { T } from "./texts.js";

// Call `show` with each state of a job and return the last one. The browser connects again where events end early.
export const follow = (job, show, signal) => new Promise((resolve, reject) => {
  const address = `/jobs/${encodeURIComponent(job)}`;
  const events = new EventSource(`${address}/events`);
  const end = (settle, value) => { events.close(); settle(value); };
  events.onmessage = ({ data }) => {
    const state = JSON.parse(data);
    show(state);
    if (state.state !== "running") end(resolve, state);
  };
  events.onerror = () => events.readyState === EventSource.CLOSED && get(address, {}, signal).then(resolve, reject);
  signal.addEventListener("abort", () => end(reject, signal.reason));
});

// Progress with a button that cancels the job that was started last; `cancelled` is called before.
export function jobProgress(label, cancelled = () => {}) {
  let job = null;
  const bar = h("progress", { max: 1, "aria-label": label });
  const said = hint();
  const stop = () => job && post(`/jobs/${encodeURIComponent(job)}/cancel`, {}).catch((error) => {
    said.textContent = error.message;
  });
  const cancel = button(T.cancel, () => { cancelled(); stop(); });
  const show = ({ done, total, message }) => {
    if (total) bar.value = done / total;
    said.textContent = [total && T.progress(done, total), shown(message ?? "")].filter(Boolean).join(" · ");
  };
  const start = (key) => {
    if (job === null) cancel.focus();
    job = key;
  };
  return { show, start, node: h("div", { class: "stack job" }, h("p", {}, label), bar, said, h("div", {}, cancel)) };
}
