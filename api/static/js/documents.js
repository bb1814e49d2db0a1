// The view of a collection's documents: what is in it, adding, deleting, opening.

import * as api from "./api.js";
import { askName, confirmed } from "./dialogs.js";
import { announce, byId, debounced, el, icon } from "./dom.js";
import { acceptsDrops } from "./drops.js";
import { onLanguage, size, t } from "./i18n.js";
import { closedHref, go, href, route } from "./routes.js";
import * as source from "./source.js";
import { collectionInfo, loadCollections, mayAdminister, mayWrite, onCollections, store } from "./store.js";
import * as uploads from "./uploads.js";

const PAGE = 50;
let listed = [];
let following = null;
let latest = 0;

export function setUp() {
  byId("contains").addEventListener("input", debounced(200, reload));
  byId("more-documents").addEventListener("click", more);
  byId("choose-files").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", chosen);
  byId("new-collection").addEventListener("click", () => askName(makeCollection));
  byId("delete-collection").addEventListener("click", deleteCollection);
  acceptsDrops(byId("upload"), mayWrite, async (transfer) => {
    uploads.add(store.collection, await uploads.dropped(transfer));
  });
  uploads.setUp(refresh);
  onLanguage(render);
  onCollections(renderFacts);
}

let shownCollection = "";

export async function show() {
  if (shownCollection !== store.collection) clear();
  shownCollection = store.collection;
  render();
  await reload();
}

/** Only where the address names another collection: a document that opens leaves the list as it is. */
export async function showOther() {
  if (shownCollection !== store.collection) await show();
}

/** On signing out. */
export function forget() {
  clear();
  render();
}

function clear() {
  byId("contains").value = "";
  listed = [];
  following = null;
}

/** After something changed: sizes and list. */
async function refresh() {
  source.forget();
  await loadCollections();
  if (!byId("view-documents").hidden) await reload();
}

async function reload() {
  await load(0);
}

async function more() {
  const place = listed.length;
  await load(following);
  byId("documents").children[place]?.querySelector("a").focus();
}

/** Later answers win: what was asked for before the last letter was typed is thrown away. */
async function load(offset) {
  const mine = ++latest;
  const contains = byId("contains").value.trim();
  try {
    const page = await api.documents(store.collection, { offset, limit: PAGE, contains });
    if (mine !== latest) return;
    listed = offset === 0 ? page.documents : [...listed, ...page.documents];
    following = page.next_offset;
    render();
  } catch (error) {
    if (mine !== latest) return;
    listed = [];
    following = null;
    render();
    tell(error.shown ?? String(error));
  }
}

function tell(text) {
  byId("documents-none").textContent = text;
  byId("documents-none").hidden = !text;
}

// Showing

function render() {
  renderFacts();
  const contains = byId("contains").value.trim();
  byId("documents").replaceChildren(...listed.map(item));
  byId("more-documents").hidden = following === null;
  if (listed.length) tell("");
  else tell(contains ? t("documents.none_found", { text: contains }) : t("documents.none"));
  if (contains && listed.length) announce(t("documents.found", { count: listed.length }));
}

function renderFacts() {
  const info = collectionInfo();
  const facts = info === undefined ? "" : [
    t("documents.facts", { count: info.documents }),
    t("documents.facts_more", { chunks: info.chunks, size: size(info.disk_bytes) }),
  ].join(" · ");
  byId("documents-facts").textContent = mayWrite() ? facts : `${facts}. ${t("documents.read_only")}`;
  byId("upload").hidden = !mayWrite();
  byId("new-collection").hidden = !mayWrite();
  byId("delete-collection").hidden = !mayAdminister() || info === undefined;
}

function item(info) {
  const title = info.title || info.id;
  const isOpen = route().d === info.id && "true";
  const remove = el(
    "button",
    { type: "button", class: "plain", "aria-label": t("documents.delete", { title }), onclick: () => deleteDocument(info) },
    icon("trash"),
  );
  return el(
    "li",
    {},
    el("a", { href: href({ view: "documents", c: store.collection, d: info.id }), "aria-current": isOpen }, title),
    el("span", { class: "facts" }, factsOf(info)),
    mayWrite() ? remove : null,
  );
}

function factsOf(info) {
  return [
    info.id === info.title ? null : info.id,
    info.language === "und" ? null : info.language.toUpperCase(),
    info.pages ? t("documents.pages", { count: info.pages }) : null,
    t("documents.passages", { count: info.chunks }),
  ].filter(Boolean).join(" · ");
}

/** After a document was opened or closed beside the list. */
export function markSource() {
  for (const link of byId("documents").querySelectorAll("a")) {
    const isOpen = link.getAttribute("href") === href({ view: "documents", c: store.collection, d: route().d });
    link.toggleAttribute("aria-current", isOpen);
    if (isOpen) link.setAttribute("aria-current", "true");
  }
}

// Changing

function chosen() {
  const files = [...byId("files").files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  byId("files").value = "";
  uploads.add(store.collection, files);
}

async function deleteDocument(info) {
  const title = info.title || info.id;
  const text = t("documents.delete_text", { title, collection: store.collection });
  if (!(await confirmed({ title: t("documents.delete_title"), text, yes: t("documents.delete_yes") }))) return;
  try {
    await api.deleteDocument(store.collection, info.id);
    announce(t("documents.deleted", { title }));
    if (route().d === info.id) location.hash = closedHref();
    await refresh();
    byId("documents-title").focus();
  } catch (error) {
    tell(error.shown ?? String(error));
  }
}

async function makeCollection(name) {
  await api.createCollection(name);
  await loadCollections();
  announce(t("collections.made", { name }));
  go({ view: "documents", c: name });
}

async function deleteCollection() {
  const name = store.collection;
  const text = t("collections.delete_text", { name, count: collectionInfo().documents });
  if (!(await confirmed({ title: t("collections.delete_title"), text, yes: t("documents.delete_yes") }))) return;
  try {
    await api.deleteCollection(name);
    await loadCollections();
    announce(t("collections.deleted", { name }));
    go({ view: "documents", c: store.collections[0]?.name ?? "default" });
  } catch (error) {
    tell(error.shown ?? String(error));
  }
}
