// The API, read from the server's own description.
import { get, server } from "./api.js";
import { entitle, h, hint, notice, stack, table, title } from "./dom.js";
import { drawHead } from "./head.js";
import { T } from "./texts.js";

const DEEPEST = 3;

function typeOf(schema = {}) {
  const choices = schema.anyOf ?? schema.oneOf ?? schema.enum;
  if (choices) return choices.map((one) => (schema.enum ? JSON.stringify(one) : typeOf(one))).join(" | ");
  const name = schema.$ref?.split("/").at(-1) ?? [schema.type ?? T.api.any].flat().join(" | ");
  return name === "array" ? `[${typeOf(schema.items)}]` : name;
}

const limits = (schema = {}) => Object.entries(T.api.limits).filter(([key]) => (schema[key] ?? "") !== "")
  .map(([key, say]) => say(JSON.stringify(schema[key])));
const prose = (text) => (text ?? "").split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));
const meaning = (...words) => words.flat().filter(Boolean).join(" ");
const fieldTable = (rows) => rows.length > 0 && table(T.api.table, T.api.columns, rows.map(([name, schema, text]) =>
  [h("code", {}, name), h("code", {}, typeOf(schema)), prose(text)]));

// The fields of a schema as rows, those of what it refers to under names such as hits[].name.
function fields(schema, schemas, before = "", depth = 0) {
  const found = schema?.$ref ? schemas[typeOf(schema)] : schema;
  if (depth > DEEPEST || !found) return [];
  if (found.type === "array") return fields(found.items, schemas, `${before}[]`, depth + 1);
  return Object.entries(found.properties ?? {}).flatMap(([key, one]) => {
    const name = before ? `${before}.${key}` : key;
    const text = meaning(found.required?.includes(key) && T.api.required, one.description, limits(one));
    return [[name, one, text], ...fields(one, schemas, name, depth + 1)];
  });
}

const body = (content, schemas) => Object.entries(content ?? {}).map(([kind, { schema }]) =>
  [hint(h("code", {}, kind), ` ${typeOf(schema)}`), fieldTable(fields(schema, schemas))]);

function operation(path, method, found, schemas) {
  const parameters = (found.parameters ?? []).map((one) => [one.name, one.schema,
    meaning(one.required && T.api.required, one.description, `(${T.api.places[one.in] ?? one.in})`, limits(one.schema))]);
  const answers = Object.entries(found.responses ?? {}).map(([status, answer]) =>
    [h("p", {}, h("strong", {}, status), " ", prose(answer.description)), body(answer.content, schemas)]);
  return h("details", { class: "operation" },
    h("summary", {}, h("h2", {}, h("span", { class: `method ${method}` }, method.toUpperCase()), h("code", {}, path)),
      h("span", { class: "hint" }, found.summary)),
    stack((found.description ?? "").split(/\n\s*\n/).filter(Boolean).map((one) => h("p", {}, prose(one))),
      parameters.length > 0 && [h("h3", {}, T.api.parameters), fieldTable(parameters)],
      found.requestBody && [h("h3", {}, T.api.body), body(found.requestBody.content, schemas)],
      h("h3", {}, T.api.answers), answers));
}

async function start() {
  const main = document.getElementById("main");
  entitle(T.views.api);
  drawHead("api");
  try {
    const found = await get("/openapi.json");
    const operations = Object.entries(found.paths).flatMap(([path, methods]) => Object.entries(methods)
      .map(([method, one]) => operation(path, method, one, found.components?.schemas ?? {})));
    main.replaceChildren(h("div", { class: "stack narrow" }, title(T.api.title),
      h("p", { class: "lead" }, prose(found.info?.description || T.api.lead)),
      h("p", {}, h("a", { href: "/openapi.json" }, "/openapi.json"), ` · ${found.info?.version ?? ""}`), operations));
    Object.assign(server, await get("/indexes"));
    [server.index] = server.indexes;
    drawHead("api");
  } catch (error) {
    main.replaceChildren(notice(error, start));
  }
}

start();
