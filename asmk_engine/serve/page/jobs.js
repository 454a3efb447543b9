// Work that the server does in the background, followed by its events.
import { get, post } from "./api.js";
import { h, shown } from "./dom.js";
import { T } from "./texts.js";

// Call `show` with each state of a job and return the last one. Without events, the job is asked for every second.
export function follow(job, show, signal) {
  return new Promise((resolve, reject) => {
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
}

export function jobProgress(title, job, cancelled = () => {}) {
  const bar = h("progress", { max: 1, "aria-label": title });
  const said = h("p", { class: "hint" });
  const cancel = h("button", { type: "button", onclick: async () => {
    cancelled();
    cancel.disabled = true;
    if (job) await post(`/jobs/${encodeURIComponent(job)}/cancel`, {}).catch((error) => { said.textContent = error.message; });
  } }, T.cancel);
  const node = h("div", { class: "stack job", role: "group", "aria-label": title }, h("p", {}, title), bar, said,
    h("div", {}, cancel));
  const show = ({ done, total, message }) => {
    if (total) bar.value = done / total;
    said.textContent = [total ? T.progress(done, total) : "", shown(message ?? "")].filter(Boolean).join(" · ");
  };
  return { node, show, start: (id) => { job = id; } };
}
