// Elements made by hand. Text is always text: record values come from anybody and are never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `attributes.text` becomes its text, functions become listeners, `false` leaves one out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const by = (id) => document.getElementById(id);

/** Sets a text only when it changes, so that selections and screen readers are left in peace. */
export function say(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

/** Shows a badge with a text, or hides it without one. */
export function badge(element, text) {
  element.hidden = !text;
  say(element, text);
}

/** Fills a <select>, keeping what was chosen; options are [value, text] and stay as they are when nothing changed. */
export function options(select, pairs, chosen = select.value) {
  const key = JSON.stringify(pairs);
  if (select.dataset.pairs !== key) {
    select.dataset.pairs = key;
    select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, text })));
  }
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
  else if (pairs.length) select.value = pairs[0][0];
}

/** A table from a head of {text, number, hidden} and rows of cells: text, or an element. */
export function table(caption, head, rows) {
  const cell = (content, column) => {
    const td = el("td", { class: column.number ? "number" : undefined });
    td.append(content instanceof Node ? content : String(content ?? ""));
    return td;
  };
  return el("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {},
      el("caption", { class: "hidden-label", text: caption }),
      el("thead", {}, el("tr", {}, ...head.map((column) =>
        el("th", { scope: "col", class: column.number ? "number" : undefined, text: column.text })))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((content, i) => cell(content, head[i])))))));
}
