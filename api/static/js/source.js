// The document beside the answer, at the quoted words. Offsets are code points.

import * as api from "./api.js";
import { CodePoints } from "./codepoints.js";
import { copyFrom } from "./dialogs.js";
import { announce, byId, el } from "./dom.js";
import { onLanguage, t } from "./i18n.js";
import { absolute, href } from "./routes.js";
import { asksForKey } from "./store.js";

const WINDOW = 60_000;
/** Code points shown around a place at first: a whole book at once would make the page slow. */
const narrow = window.matchMedia("(width < 64rem)");

let opened = null;
let cached = null;
let loading = null;
let cameFrom = null;

export function setUp() {
  byId("close-source").addEventListener("click", () => close());
  narrow.addEventListener("change", holdBack);
  onLanguage(() => opened?.document && render());
}

export const isOpen = () => opened !== null;

/** Forgets what was fetched: a document may be other than it was. */
export function forget() {
  cached = null;
  if (opened === null) byId("source-text").replaceChildren();
}

/** Opens a document at `start`–`end`, where these are given; does nothing where that is open already. */
export async function show({ c: collection, d: id, s, e, quote }) {
  const place = { collection, id, start: s === undefined ? null : Number(s), end: Number(e ?? 0), quote };
  if (opened !== null && isSame(opened, place)) return;
  if (opened === null) cameFrom = document.activeElement;
  loading?.abort();
  loading = new AbortController();
  opened = { ...place, document: null, from: 0, to: 0 };
  reveal();
  byId("source-title").textContent = t("source.loading");
  byId("source-facts").replaceChildren();
  byId("source-text").replaceChildren();
  byId("source-title").focus();
  await load(opened, loading.signal);
}

const isSame = (one, other) =>
  one.collection === other.collection && one.id === other.id && one.start === other.start && one.end === other.end;

async function load(place, signal) {
  try {
    if (cached?.collection !== place.collection || cached.document.id !== place.id) {
      const found = await api.document(place.collection, place.id, signal);
      cached = { collection: place.collection, document: found, points: new CodePoints(found.text) };
    }
  } catch (error) {
    if (error.name === "AbortError" || opened !== place) return;
    byId("source-title").textContent = t("source.failed");
    byId("source-text").replaceChildren(el("p", { class: "error" }, error.shown ?? String(error)));
    return;
  }
  if (opened !== place) return;
  Object.assign(place, { document: cached.document, points: cached.points });
  const middle = place.start ?? 0;
  place.from = Math.max(0, middle - WINDOW / 2);
  place.to = Math.min(place.points.length, Math.max(middle + WINDOW / 2, WINDOW, place.end));
  render();
  scrollToMark();
  byId("source-title").focus({ preventScroll: true });
  if (place.start !== null) announce(t("source.opened", { title: place.document.title }));
}

function reveal() {
  byId("source").hidden = false;
  document.body.classList.add("has-source");
  holdBack();
}

/** On a narrow screen it is a sheet, and nothing behind it can be reached. */
function holdBack() {
  const isSheet = opened !== null && narrow.matches;
  const root = byId("source");
  root.setAttribute("role", isSheet ? "dialog" : "complementary");
  root.toggleAttribute("aria-modal", isSheet);
  if (isSheet) root.setAttribute("aria-modal", "true");
  for (const node of [byId("main"), document.querySelector(".bar"), byId("skip")]) node.inert = isSheet;
}

let closing = () => {};
/** Calls the listener when the person closes the document. */
export const onClose = (listener) => { closing = listener; };

export function close() {
  closing();
}

/** Hides it, and gives the focus back to what opened it, or to what now stands in its place. */
export function hide() {
  if (opened === null) return;
  const { id, start } = opened;
  opened = null;
  loading?.abort();
  const hadFocus = byId("source").contains(document.activeElement) || document.activeElement === document.body;
  byId("source").hidden = true;
  document.body.classList.remove("has-source");
  holdBack();
  if (!hadFocus) return;
  const back = cameFrom?.isConnected && cameFrom !== document.body ? cameFrom : linkTo(id, start) ?? byId("main");
  back.focus();
}

function linkTo(id, start) {
  const wanted = new URLSearchParams({ d: id, ...(start === null ? {} : { s: start }) }).toString();
  return [...document.querySelectorAll("main a[href]")].find((link) => link.getAttribute("href").includes(wanted));
}

// Showing

function render() {
  const { document: shown } = opened;
  byId("source-title").textContent = shown.title || shown.id;
  byId("source-facts").replaceChildren(...facts().filter(Boolean));
  const root = byId("source-text");
  root.lang = shown.language === "und" ? "" : shown.language;
  root.replaceChildren(...textNodes().filter(Boolean));
}

function facts() {
  const { document: shown, collection, id, start, end } = opened;
  const page = start === null ? null : pageOf(start);
  const link = href({ view: "source", c: collection, d: id, s: start ?? undefined, e: start === null ? undefined : end });
  const copy = (event) => copyFrom(event.currentTarget, {
    title: t("source.link"), text: absolute(link), fileName: "link.txt", type: "text/plain",
  });
  return [
    page === null ? null : el("span", { class: "page" }, t("source.page", { page })),
    shown.source && shown.source !== shown.title ? el("span", {}, shown.source) : null,
    shown.has_original ? original(page) : website(shown.source),
    el("button", { type: "button", class: "plain", onclick: copy }, el("span", {}, t("source.link"))),
    isChanged() ? el("span", { class: "error" }, t("source.changed")) : null,
  ];
}

const isChanged = () =>
  opened.start !== null && (opened.end > opened.points.length ||
    (opened.quote !== undefined && opened.points.slice(opened.start, opened.end) !== opened.quote));

/** A PDF opens at its page in a new tab; anything else is saved. */
function original(page) {
  const isPdf = opened.document.page_starts.length > 0;
  const path = api.originalPath(opened.collection, opened.id, isPdf ? "inline" : "attachment");
  const fragment = isPdf && page !== null ? `#page=${page}` : "";
  const onclick = asksForKey() && ((event) => {
    event.preventDefault();
    const done = isPdf ? api.openInTab(path, fragment) : api.download(path);
    done.catch((error) => announce(error.shown ?? String(error)));
  });
  const how = isPdf ? { target: "_blank", rel: "noopener" } : { download: true };
  return el("a", { href: path + fragment, ...how, onclick }, t(isPdf ? "source.original_pdf" : "source.original"));
}

/** Only an address of the web is a link: a document may say anything of itself. */
function website(source) {
  if (!/^https?:\/\//i.test(source)) return null;
  return el("a", { href: source, target: "_blank", rel: "noopener noreferrer" }, t("source.website"));
}

const pageOf = (offset) => {
  const starts = opened.document.page_starts;
  return starts.length ? Math.max(1, starts.filter((begins) => begins <= offset).length) : null;
};

function textNodes() {
  const { start, end, from, to, points } = opened;
  const first = Math.min(Math.max(start ?? from, from), to);
  const last = Math.min(Math.max(start === null ? from : end, first), to);
  const marked = last > first && el("mark", { id: "quoted" }, pieces(first, last));
  const more = (words, change) =>
    el("p", { class: "more" }, el("button", { type: "button", onclick: change }, t(words)));
  return [
    from > 0 && more("source.earlier", () => widen(Math.max(0, from - WINDOW), to)),
    el("p", {}, pieces(from, first), marked, pieces(last, to)),
    to < points.length && more("source.later", () => widen(from, Math.min(points.length, to + WINDOW))),
  ];
}

function widen(from, to) {
  const root = byId("source-text");
  const fromBottom = from < opened.from ? root.scrollHeight - root.scrollTop : null;
  Object.assign(opened, { from, to });
  render();
  if (fromBottom !== null) root.scrollTop = root.scrollHeight - fromBottom;
  root.focus();
}

/** The text from one offset to another, with the beginnings of pages and of paragraphs between. */
function pieces(from, to) {
  const starts = opened.document.page_starts.filter((begins) => begins > 0 && from <= begins && begins < to);
  const cuts = [from, ...starts.filter((begins) => begins > from), to];
  return cuts.slice(1).flatMap((end, place) => {
    const start = cuts[place];
    const page = opened.document.page_starts.indexOf(start);
    const label = page > 0 && el("span", { class: "page-start", "data-label": t("source.page", { page: page + 1 }) });
    return [...(label ? [label] : []), ...lines(opened.points.slice(start, end))];
  });
}

const LIST_ITEM = /^\s*([-*+•#>|]|\d+[.)])\s/;
const HEADING = /^#{1,6} /;
const LONG = 60;

/**
 * Text nodes, with line breaks where the text means them: a line that was only broken because it was long flows
 * on. Every letter stays in the text nodes, also the line ends.
 */
function lines(text) {
  const parts = text.split("\n");
  return parts.flatMap((part, at) => {
    const isLast = at === parts.length - 1;
    const whole = isLast ? part : `${part}\n`;
    const node = HEADING.test(part) ? el("span", { class: "heading" }, whole) : whole;
    return isLast ? [node] : [node, ...breakBetween(part, parts[at + 1], at > 0)];
  });
}

function breakBetween(line, next, isInside) {
  if (!line.trim() && isInside) return [el("span", { class: "gap" })];
  const isSoft = line.length >= LONG && next.trim() && !LIST_ITEM.test(next) && !HEADING.test(line);
  return isSoft ? [] : [el("br")];
}

function scrollToMark() {
  const root = byId("source-text");
  const mark = byId("quoted");
  root.scrollTop = mark === null ? 0 : Math.max(0, mark.offsetTop - root.clientHeight / 3);
}
