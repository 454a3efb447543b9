// The API, read from the server's own description.
import { get, server } from "./api.js";
import { h, hint, notice, stack, title } from "./dom.js";
import { drawHead } from "./head.js";
import { T } from "./texts.js";

const DEEPEST = 3;

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.type === "array") return `[${typeOf(schema.items) || T.api.any}]`;
  return [schema.type ?? T.api.any, schema.format && `(${schema.format})`].flat().filter(Boolean).join(" ");
}

const limits = ({ minimum, maximum, default: usual }) => [minimum !== undefined && T.api.least(minimum),
  maximum !== undefined && T.api.most(maximum), (usual ?? "") !== "" && T.api.usual(JSON.stringify(usual))];

const prose = (text) => (text ?? "").split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));

const meaning = (...words) => words.flat().filter(Boolean).join(" ");

const table = (rows) => rows.length > 0 && h("div", { class: "scroll", tabindex: 0, role: "group",
  "aria-label": T.api.table }, h("table", {},
  h("thead", {}, h("tr", {}, T.api.columns.map((one) => h("th", { scope: "col" }, one)))),
  h("tbody", {}, rows.map(([name, schema, text]) => h("tr", {}, h("td", {}, h("code", {}, name)),
    h("td", {}, h("code", {}, typeOf(schema))), h("td", {}, prose(text)))))));

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
  [hint(h("code", {}, kind), ` ${typeOf(schema)}`), table(fields(schema, schemas))]);

function operation(path, method, found, schemas) {
  const parameters = (found.parameters ?? []).map((one) => [one.name, one.schema, meaning(one.required && T.api.required,
    one.description, `(${T.api.places[one.in] ?? one.in})`, limits(one.schema ?? {}))]);
  const answers = Object.entries(found.responses ?? {}).map(([status, answer]) =>
    [h("p", {}, h("strong", {}, status), " ", prose(answer.description)), body(answer.content, schemas)]);
  return h("details", { class: "operation" },
    h("summary", {}, h("h2", {}, h("span", { class: `method ${method}` }, method.toUpperCase()), h("code", {}, path)),
      h("span", { class: "hint" }, found.summary)),
    stack((found.description ?? "").split(/\n\s*\n/).filter(Boolean).map((one) => h("p", {}, prose(one))),
      parameters.length > 0 && [h("h3", {}, T.api.parameters), table(parameters)],
      found.requestBody && [h("h3", {}, T.api.body), body(found.requestBody.content, schemas)],
      h("h3", {}, T.api.answers), answers));
}

async function start() {
  const main = document.getElementById("main");
  document.title = T.titles.api;
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
