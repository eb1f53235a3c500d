"use strict";

// Everything on the page is made here. Texts, which come from outside, only ever become text nodes or attributes.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return made;
}

// A section with its heading, and its entry in the navigation.
function section(id, title, ...children) {
  document.getElementById("nav").append(element("a", { href: `#${id}` }, title));
  const heading = element("h2", { id: `${id}-title` }, title);
  return element("section", { id, "aria-labelledby": `${id}-title` }, heading, ...children);
}

function note(text) {
  return element("p", { class: "note" }, text);
}

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

// A number as a person writes it: whole numbers with separators, others with four digits.
function written(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return Math.abs(value) < 1e9 ? WHOLE.format(value) : value.toPrecision(4);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-4 ? value.toExponential(3).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)));
}

// A labelled choice of a few, as radio buttons, which the arrow keys move through.
function segments(legend, name, options, chosen, onchange) {
  const buttons = Object.entries(options).map(([value, label]) => element("label", {},
    element("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) }), label));
  return element("fieldset", {}, element("legend", {}, legend), element("div", { class: "segments" }, buttons));
}

function selection(label, options, onchange) {
  const made = element("select", { "aria-label": label, onchange: () => onchange(made.value) },
    Object.entries(options).map(([value, text]) => element("option", { value }, text)));
  return made;
}
