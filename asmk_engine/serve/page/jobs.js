// Work that the server does in the background, followed by its events.
import { get, post } from "./api.js";
import { button, h, hint, shown } from "./dom.js";
import { T } from "./texts.js";

// Call `show` with each state of a job and return the last one. Without events, the job is asked for every second.
export const follow = (job, show, signal) => new Promise((resolve, reject) => {
  const address = `/jobs/${encodeURIComponent(job)}`;
  const events = new EventSource(`${address}/events`);
  const receive = (state) => {
    show(state);
    if (state.state === "running") return true;
    events.close();
    resolve(state);
    return false;
  };
  const poll = () => get(address, {}, signal).then((state) => receive(state) && setTimeout(poll, 1000)).catch(reject);
  events.onmessage = (event) => receive(JSON.parse(event.data));
  events.onerror = () => { events.close(); poll(); };
  signal.addEventListener("abort", () => { events.close(); reject(signal.reason); });
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
  const start = (key) => { job = key; cancel.focus(); };
  return { show, start, node: h("div", { class: "stack job" }, h("p", {}, label), bar, said, h("div", {}, cancel)) };
}
