// Requests to the server: signing in, waiting when it is busy, and errors that can be shown to a person.
import { announce, h, openDialog } from "./dom.js";
import { T } from "./texts.js";

const LONGEST_WAIT = 30;
const JSON_KIND = { "Content-Type": "application/json" };

// What the page knows of the server: its indexes, and the one that is shown.
export const server = { indexes: [], index: null };
const refusal = (status, message) => Object.assign(new Error(message), { status });
const whole = (text) => encodeURIComponent(text.toWellFormed?.() ?? text);
const path = (name) => name.split("/").map(whole).join("/");

// The values after ? in an address; lists are repeated, and what is empty is left out.
export const query = (values) => Object.entries(values)
  .flatMap(([key, value]) => [value].flat().map((one) => [key, one]))
  .filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([key, value]) => `${key}=${whole(String(value))}`).join("&");

export const get = (address, values = {}, signal = undefined) =>
  request(`${address}?${query({ index: server.index?.name, ...values })}`, { signal });
export const post = (address, content, signal = undefined) => request(address, { method: "POST", signal,
  headers: JSON_KIND, body: JSON.stringify({ index: server.index?.name, ...content }) });
export const postForm = (address, body, signal = undefined) => request(address, { method: "POST", body, signal });
export const getImage = (name, signal) => get(`/images/${path(name)}`, {}, signal);
export const thumbnail = (name, size) => `/thumbnails/${path(name)}?${query({ index: server.index?.name, size })}`;
export const picture = (photo, size) =>
  photo.upload ? `/uploads/${whole(photo.upload)}?${query({ size })}` : thumbnail(photo.name, size);

async function request(address, options, again = true) {
  const response = await fetch(address, { credentials: "same-origin", ...options }).catch((error) => {
    throw error.name === "AbortError" ? error : refusal(0, T.offline);
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  if (response.status === 401 && again) {
    await (signingIn ??= signIn().finally(() => { signingIn = null; }));
    return request(address, options, false);
  }
  if ([429, 503].includes(response.status) && again) {
    const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_WAIT);
    announce(T.busy(seconds));
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    options.signal?.throwIfAborted();
    return request(address, options, false);
  }
  throw await refusalOf(response);
}

async function refusalOf(response) {
  const content = await response.json().catch(() => null);
  return refusal(response.status, typeof content?.error === "string" ? content.error : T.failed(response.status));
}

export async function login(token) {
  const response = await fetch("/login", { method: "POST", headers: JSON_KIND, body: JSON.stringify({ token }) });
  if (!response.ok) throw await refusalOf(response);
}

let signingIn = null;

const signIn = () => new Promise((resolve, reject) => {
  const said = h("p", { class: "fault", role: "alert" });
  const token = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
  const send = async (event) => {
    event.preventDefault();
    try {
      await login(token.value.trim());
      resolve();
      dialog.close();
    } catch (error) {
      said.textContent = error.status === 401 ? T.signIn.refused : error.message;
      token.focus();
    }
  };
  const form = h("form", { class: "stack", onsubmit: send }, h("p", {}, T.signIn.why),
    h("label", { for: "token" }, T.signIn.token), token, said, h("button", { class: "main" }, T.signIn.send));
  const dialog = openDialog(T.signIn.title, form, () => reject(refusal(401, T.signIn.needed)));
  token.focus();
});
