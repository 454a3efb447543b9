// The API, read from the server's own description.
import { get, server } from "./api.js";
import { h, notice } from "./dom.js";
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
  return [schema.type, schema.format && `(${schema.format})`].filter(Boolean).join(" ");
}

const limits = ({ minimum, maximum, default: usual }) => [
  minimum !== undefined && T.api.least(minimum), maximum !== undefined && T.api.most(maximum),
  usual !== undefined && usual !== null && T.api.usual(JSON.stringify(usual))].filter(Boolean).join(", ");

function table(rows) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": T.api.table }, h("table", {},
    h("thead", {}, h("tr", {}, T.api.columns.map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, rows.map(([name, schema, text, required]) => h("tr", {}, h("td", {}, h("code", {}, name)),
      h("td", {}, h("code", {}, typeOf(schema))),
      h("td", {}, [required && T.api.required, text, limits(schema ?? {})].filter(Boolean).join(" ")))))));
}

function fields(schema, schemas, depth = 0, before = "") {
  const found = schema?.$ref ? schemas[typeOf(schema)] : schema;
  if (depth > DEEPEST || !found) return [];
  if (found.type === "array") return fields(found.items, schemas, depth, `${before}[].`);
  return Object.entries(found.properties ?? {}).flatMap(([name, one]) => [
    [`${before}${name}`, one, one.description, found.required?.includes(name)],
    ...(one.$ref || one.type === "array" ? fields(one.$ref ? one : one.items, schemas, depth + 1,
      `${before}${name}${one.$ref ? "." : "[]."}`) : [])]);
}

function body(content, schemas) {
  return Object.entries(content ?? {}).map(([kind, { schema }]) => {
    const rows = fields(schema, schemas);
    return [h("p", { class: "hint" }, h("code", {}, kind), ` ${typeOf(schema)}`), rows.length > 0 && table(rows)];
  });
}

function operation(path, method, found, schemas) {
  const parameters = (found.parameters ?? []).map((one) =>
    [`${one.name}`, one.schema, [one.description, `(${T.api.places[one.in] ?? one.in})`].filter(Boolean).join(" "),
      one.required]);
  const answers = Object.entries(found.responses ?? {}).map(([status, answer]) => [
    h("p", {}, h("strong", {}, status), ` ${answer.description}`), body(answer.content, schemas)]);
  return h("section", { class: "operation" }, h("details", {},
    h("summary", {}, h("h2", {}, h("span", { class: `method ${method}` }, method.toUpperCase()), h("code", {}, path)),
      h("span", { class: "hint" }, found.summary)),
    h("div", { class: "stack" }, (found.description ?? "").split(/\n\s*\n/).filter(Boolean).map((one) => h("p", {}, one)),
      parameters.length > 0 && [h("h3", {}, T.api.parameters), table(parameters)],
      found.requestBody && [h("h3", {}, T.api.body), body(found.requestBody.content, schemas)],
      h("h3", {}, T.api.answers), answers)));
}

async function start() {
  const main = document.getElementById("main");
  document.title = T.titles.api;
  drawHead("api");
  try {
    const found = await get("/openapi.json");
    const schemas = found.components?.schemas ?? {};
    const operations = Object.entries(found.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, one]) => operation(path, method, one, schemas)));
    main.replaceChildren(h("div", { class: "stack narrow" }, h("h1", {}, T.api.title),
      h("p", { class: "lead" }, found.info?.description || T.api.lead),
      h("p", {}, h("a", { href: "/openapi.json" }, "/openapi.json"), ` · ${found.info?.version ?? ""}`), operations));
    Object.assign(server, await get("/indexes"));
    server.index = server.indexes[0];
    drawHead("api");
  } catch (error) {
    main.append(notice(error, start));
  }
}

start();
