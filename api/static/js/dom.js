// Making elements. Everything shown goes through text nodes and attributes; no string is ever parsed as HTML.

export const byId = (id) => document.getElementById(id);

/**
 * `el("a", {class: "chip", href: "#/", onclick: f}, "text", child)`. Attributes that are false or null are left out;
 * names that begin with "on" are listeners; children that are null or false are left out.
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined));
  return node;
}

export const icon = (name) => el("span", { class: `icon ${name}`, "aria-hidden": "true" });

/** Tells a screen reader, without moving the focus. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** An error as it is shown beside what it is about. */
export function showError(node, text) {
  node.textContent = text;
  node.hidden = !text;
}

/** Runs a function once nothing called it for a while. */
export function debounced(wait, run) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), wait);
  };
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
