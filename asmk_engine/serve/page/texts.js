// All words that the page shows.
const number = (count) => count.toLocaleString("en");
const counted = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;
const images = (count) => counted(count, "image", "images");
const features = (count) => counted(count, "matched feature", "matched features");
const matching = (count) => (count === null ? "" : `, ${counted(count, "match", "matches")}`);

export const T = {
  nav: "Views", skip: "Skip to the content", index: "Index", close: "Close", cancel: "Cancel", again: "Try again",
  images, gone: "The photograph cannot be shown", progress: (done, total) => `${number(done)} of ${number(total)}`,
  views: { search: "Search", browse: "Collection", groups: "Groups", marks: "Judgements", add: "Add", api: "API" },
  title: (text) => `${text} - asmk-engine`,
  verdicts: { match: "Match", maybe: "Maybe", no: "No match" },
  kinds: { copy: "Copy", crop: "Crop", mirrored: "Mirrored", view: "Another view", alone: "Alone" },
  offline: "The server does not answer.", failed: (status) => `The server answered with an error (${status}).`,
  busy: (seconds) => `The server is busy; trying again in ${counted(seconds, "second", "seconds")}.`,
  hints: {
    0: "Check that asmk-engine serve still runs, then try again.", 401: "Try again to sign in.",
    404: "It may be deleted, or was kept for an hour only: look in the collection, or give it again.",
    413: "Give a smaller photograph.", 415: "Give a photograph such as JPEG, PNG or WebP.",
    429: "Wait a moment, then try again.", 500: "The terminal in which the server runs may say more.",
    503: "Wait a moment, then try again.", 504: "Ask with fewer or smaller photographs.",
  },
  signIn: {
    title: "Sign in", why: "This server asks for a token. It ends the address that asmk-engine serve printed.",
    token: "Token", send: "Sign in", refused: "This is not the token of this server. Copy it from its terminal.",
    needed: "The server needs its token.",
  },
  ask: {
    title: "Find the same thing in other photographs",
    lead: (count) => `Give a photograph of a building, a product or a painting: ${images(count)} are searched for it.`,
    onlyNames: "This index holds no way to describe photographs: ask with one of its own images, by name or below.",
    drop: "Drop photographs here", paste: "or paste one, or choose files. Several are one question about one thing.",
    choose: "Choose photographs", byName: "Ask with an indexed image", namePlaceholder: "Name of an image", send: "Ask",
    collection: "From the collection",
    question: (count) => (count === 1 ? "Question" : `Question of ${count} photographs`), fresh: "New question",
    photographs: "Photographs of the question", remove: (name) => `Remove ${name} from the question`,
    turned: "Also find it", rotations: "turned", mirror: "mirrored", another: "Add a photograph of the same thing",
    anotherHint: "A photograph from another side finds more. Drop it here, choose it, or name an indexed image.",
    sending: (count) => `Sending ${counted(count, "photograph", "photographs")}…`,
  },
  region: {
    role: "region", whole: "Whole image", none: "Whole image. Arrow keys begin a region.",
    help: "Drag to ask for a part. With keys: arrows move it, Shift and arrows resize it, Delete clears it.",
    at: (x1, y1, x2, y2) => `Region from ${x1}, ${y1} to ${x2}, ${y2} pixels`,
  },
  hits: {
    waiting: "Searching…", none: "No answers", folder: "Folder", allFolders: "All folders", verdict: "Verdicts shown",
    nothing: "Nothing in the collection is like this. Try the whole image, another photograph, or turned and mirrored.",
    found: (count, matches) => `${counted(count, "answer", "answers")}${matching(matches)}`,
    took: (seconds) => `${seconds.toFixed(2)} s`, more: (count) => `Show ${number(count)} more`,
    filtered: (count) => `${number(count)} shown, others are hidden by the filters.`, score: "Score ",
    compare: (name) => `Compare with ${name}`, askWith: (name) => `Ask with ${name}`,
    askToo: (name) => `Add ${name} to the question`, notAmong: (name) => `${name} is not among these answers.`,
  },
  compare: {
    title: "Compare", with: "with", waiting: "Comparing…", mode: "View", lines: "Lines", slider: "Position",
    delay: "Delay", overlay: "Opacity", stop: "Stop", start: "Blink", swap: "Swap", picture: "Picture", json: "JSON",
    ask: "Ask with this", previous: "Previous answer", next: "Next answer",
    modes: { lines: "Lines", slider: "Slider", blink: "Blink", overlay: "Overlay" },
    value: {
      lines: (value) => value, slider: (value) => `${value} %`, delay: (value) => `${value} ms`,
      overlay: (value) => `${value} %`,
    },
    drawn: (count) => `Question and answer side by side, ${features(count)} joined by lines`,
    laid: "The answer laid over the question",
    unregistered: "No map between the two was found, so they cannot be laid over each other.",
    inliers: (count, places) => `${features(count)} at ${counted(places, "place", "places")}`,
    overlap: (query, image) => `covers ${Math.round(query)} % of the question and ${Math.round(image)} % of the answer`,
    turned: (turn) => (turn === "mirrored" ? "mirrored" : `turned: ${turn}`),
    probability: (share) => `${Math.min(99, Math.round(100 * share))} % sure`, // nothing is certain
  },
  browse: {
    title: "Collection", path: "Folders", all: "All images", search: "Search names and metadata",
    searchIn: "Search names and metadata in this folder", more: "Show more", none: "No image has all these words.",
    empty: "There is nothing here.", near: "Nearest images", ask: "Ask with this image", previous: "Previous",
    following: "Next", remove: "Delete from the index", deleted: (name) => `${name} was deleted from the index.`,
    undo: "Undo", restored: (name) => `${name} is back.`,
  },
  groups: {
    title: "Groups", lead: "Which images show the same thing, and which are files of one photograph.",
    none: "Groups have not been looked for yet. All images are compared, which can take minutes.", find: "Find groups",
    finding: "Finding groups", more: "Show more groups", number: (place) => `Group ${place}`,
    found: (total, alone) => `${counted(total, "group", "groups")}; ${counted(alone, "image", "images")} alone`,
    size: (count, photographs) => `${images(count)}, ${counted(photographs, "photograph", "photographs")}`,
    files: (count) => `One photograph, ${count} files`,
  },
  marks: {
    title: "Judgements", lead: "Answers that you marked as right or wrong, kept in this browser.",
    none: "Nothing is marked yet. Use the tick and the cross below an answer.", whole: "whole image",
    columns: ["Question", "Region", "Right", "Wrong", "Forget"],
    fields: ["query", "x1", "y1", "x2", "y2", "image", "judgement"],
    forget: (name) => `Forget the marks of ${name}`,
    right: (name) => `Right: ${name}`, wrong: (name) => `Wrong: ${name}`, truth: "Ground truth", csv: "CSV",
    ignore: "Images without a mark do not count (else they count as wrong)",
    collecting: "Collecting the names of all images…",
    how: "The ground truth is read by asmk-engine evaluate INDEX --ground-truth ground-truth.json",
    full: "This browser keeps no more marks; export them and forget some.",
  },
  add: {
    title: "Add photographs", drop: "Drop photographs or a folder here", files: "Choose photographs",
    folder: "Choose a folder", readOnly: "This index cannot be changed here. Start the server with --writable.",
    sending: "sending", rest: "The others", adding: (count) => `Adding ${counted(count, "photograph", "photographs")}`,
    cancelled: "Cancelled.", added: (count) => `${counted(count, "photograph was", "photographs were")} added.`,
    failed: (count) => `${counted(count, "photograph", "photographs")} could not be added:`,
  },
  api: {
    title: "API", lead: "All that the page does can be done by a program.", parameters: "Parameters", body: "Request",
    answers: "Answers", table: "Fields", columns: ["Name", "Type", "Meaning"], required: "Required.", any: "any",
    places: { path: "in the path", query: "after ?", header: "header", cookie: "cookie" },
    limits: {
      minimum: (value) => `at least ${value}`, maximum: (value) => `at most ${value}`,
      default: (value) => `default ${value}`,
    },
  },
};
