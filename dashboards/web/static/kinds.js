// The page of kinds: what is recorded, as the declarations say it.

import { get } from "./api.js";
import { within } from "./answers.js";
import { by, el, table } from "./dom.js";
import { readKinds } from "./kinds_list.js";
import { keep } from "./live.js";
import { link } from "./scope.js";
import { age, whole } from "./units.js";

const SHAPES = { event: "an\u00a0instant", snapshot: "a\u00a0snapshot", interval: "an\u00a0interval" };
let drawn = false;

const forHowLong = (kind) => (kind.retention ? age(kind.retention * 1000) : "for ever").replaceAll(" ", "\u00a0");

function overview(kinds, stored) {
  const head = [{ text: "Kind" }, { text: "What a record is" }, { text: "Time" }, { text: "Kept" }, { text: "Stored", number: true }, { text: "" }];
  return table("Kinds", head, kinds.map((kind) => [
    el("a", { href: `#kind-${kind.name}`, text: kind.name }), kind.doc, SHAPES[kind.shape] ?? kind.shape, forHowLong(kind),
    whole(stored[kind.name] ?? 0), el("a", { href: link("/explore", { kind: kind.name }), text: "Explore" }),
  ]));
}

function details(kind) {
  const fields = [...kind.dimensions.map((one) => [one, "dimension"]), ...kind.measures.map((one) => [one, "measure"]), ...kind.products.map((one) => [one, "product"])];
  const head = [{ text: "Field" }, { text: "Role" }, { text: "Type" }, { text: "Unit" }, { text: "Meaning" }];
  const title = `kind-title-${kind.name}`;
  return el("section", { class: "panel", id: `kind-${kind.name}`, "aria-labelledby": title },
    el("div", { class: "panel-head" }, el("h2", { id: title, text: kind.name }), el("p", { class: "panel-note", text: kind.doc }),
      el("a", { class: "panel-link", href: `/v1/kinds/${encodeURIComponent(kind.name)}`, text: "JSON Schema" })),
    table(`Fields of ${kind.name}`, head, fields.map(([field, role]) => [
      el("code", { text: field.name }),
      role + (field.personal ? ", names a person" : ""),
      field.values?.length ? field.values.join(", ") : field.type,
      role === "dimension" ? "" : field.unit,
      field.doc.replaceAll(/`([^`]*)`/g, "“$1”"),
    ])));
}

keep((signal) => within(by("kinds").parentElement, async () => {
  const [kinds, pipeline] = await Promise.all([readKinds(signal), get("/v1/pipeline", {}, signal)]);
  by("kinds").replaceChildren(overview(kinds, pipeline.stored.kinds));
  if (drawn) return;
  drawn = true;
  by("kind-details").replaceChildren(...kinds.map(details));
  document.querySelector(location.hash.startsWith("#kind-") ? `[id="${CSS.escape(location.hash.slice(1))}"]` : "none")?.scrollIntoView();
}), () => 10_000);
