// Words in the chosen language: what the browser prefers, until someone switches.

import { en } from "./en.js";
import { nl } from "./nl.js";

const TABLES = { en, nl };
const STORED = "vraagbaak.language";
const listeners = [];
let current = initial();

function initial() {
  const preferred = [localStorage.getItem(STORED), ...navigator.languages];
  for (const tag of preferred) {
    const language = (tag ?? "").slice(0, 2).toLowerCase();
    if (language in TABLES) return language;
  }
  return "en";
}

export const language = () => current;

export function onLanguage(listener) {
  listeners.push(listener);
}

export function switchLanguage() {
  current = current === "nl" ? "en" : "nl";
  localStorage.setItem(STORED, current);
  applyTo(document);
  for (const listener of listeners) listener();
}

/** The text for a key. Of "one|many", or "none|one|many", `values.count` chooses; braces are filled in. */
export function t(key, values = {}) {
  const text = TABLES[current][key];
  if (text === undefined) throw new Error(`no text for ${key}`);
  return chosen(text.split("|"), values.count).replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

function chosen(forms, count) {
  if (forms.length === 1) return forms[0];
  const place = forms.length === 2 ? Number(count !== 1) : Math.min(count, 2);
  return forms[place];
}

const shown = (value) => (typeof value === "number" ? number(value) : String(value));

/** What the service says went wrong, titled in the chosen language where a title is known. */
export const problemTitle = (problem) => TABLES[current][`problem.${problem.slug}`] ?? problem.title;

export const number = (value, digits = 0) =>
  value.toLocaleString(current, { minimumFractionDigits: digits, maximumFractionDigits: digits });

export const percent = (share) => share.toLocaleString(current, { style: "percent" });

export const time = (iso) =>
  new Date(iso).toLocaleString(current, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export function size(bytes) {
  const units = ["kB", "MB", "GB", "TB"];
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 1), units.length);
  const value = bytes / 1000 ** power;
  return `${number(value, value < 10 ? 1 : 0)} ${units[power - 1]}`;
}

/** Fills in the page's own texts: data-t, data-t-label, data-t-placeholder. */
export function applyTo(root) {
  document.documentElement.lang = current;
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}
