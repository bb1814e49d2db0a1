// The start of the page: who asks, whether the service is ready, and which view an address shows.

import * as api from "./api.js";
import * as ask from "./ask.js";
import * as documents from "./documents.js";
import { byId, el, pause } from "./dom.js";
import * as drops from "./drops.js";
import * as evaluations from "./evaluations.js";
import { applyTo, onLanguage, switchLanguage, t } from "./i18n.js";
import { hideTip } from "./quotes.js";
import { closedHref, go, route } from "./routes.js";
import * as session from "./session.js";
import * as signIn from "./sign_in.js";
import * as source from "./source.js";
import { asksForKey, chooseCollection, loadCollections, onCollections, store } from "./store.js";
import * as uploads from "./uploads.js";

const views = { ask, documents, evaluations };
const POLL = 1500;
let shownView = "";
let isStarted = false;

// Starting

async function start() {
  applyTo(document);
  renderTools();
  for (const part of [ask, documents, evaluations, source, drops]) part.setUp();
  signIn.setUp(enter);
  source.onClose(() => { location.hash = closedHref(); });
  byId("language").addEventListener("click", switchLanguage);
  byId("sign-out").addEventListener("click", signOut);
  byId("collection").addEventListener("change", switchCollection);
  byId("skip").addEventListener("click", skip);
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => isStarted && follow());
  onLanguage(renderTools);
  onCollections(renderCollections);
  api.onSignedOut(() => isStarted && leave(t("sign_in.expired")));
  if (await isSignedIn()) await enter();
  else leave();
}

/** Keeps trying while the service can't be reached. */
async function isSignedIn() {
  for (;;) {
    try {
      store.session = await api.session();
      notify("");
      return true;
    } catch (error) {
      if (error.status === 401) return false;
      notify(error.status === 0 ? t("app.unreachable") : error.shown, { isBad: true });
    }
    await pause(POLL);
  }
}

async function enter() {
  renderTools();
  showOnly("");
  await untilReady();
  try {
    await loadCollections();
    isStarted = true;
    follow();
    await ask.loadExamples();
    await followReading();
  } catch (error) {
    if (error.status !== 401) notify(error.shown ?? String(error), { isBad: true });
  }
}

async function untilReady() {
  for (;;) {
    const reason = await api.notReady().catch(() => t("app.unreachable"));
    if (!reason) break;
    const isLoading = reason.includes("still being loaded");
    notify(isLoading ? t("app.loading_models") : t("app.not_ready", { reason }), { isBad: !isLoading, isBusy: isLoading });
    await pause(POLL);
  }
  notify("");
}

/** On the first start the sample documents are still being read; says how far that is. */
async function followReading() {
  let wasReading = false;
  for (;;) {
    const open = (await api.jobs(store.collection)).filter((job) => ["queued", "running"].includes(job.state));
    if (!open.length) break;
    wasReading = true;
    const done = open.reduce((sum, job) => sum + job.progress.done, 0);
    const total = open.reduce((sum, job) => sum + job.progress.total, 0);
    notify(t("app.reading", { done, total }), { done, total });
    await pause(POLL);
  }
  notify("");
  if (!wasReading) return;
  await loadCollections();
  await ask.loadExamples();
  if (shownView === "documents") await documents.show();
}

function notify(text, { isBad = false, isBusy = false, done, total } = {}) {
  const notice = byId("notice");
  const bar = total ? el("progress", { max: total, value: done, "aria-label": text }) : null;
  notice.replaceChildren(...[isBusy && el("span", { class: "spinner", "aria-hidden": "true" }), text, bar].filter(Boolean));
  notice.classList.toggle("bad", isBad);
  notice.hidden = !text;
}

// Views

function showOnly(name) {
  for (const view of ["sign-in", ...Object.keys(views)]) byId(`view-${view}`).hidden = view !== name;
  shownView = name;
}

/** Shows what the address says. */
function follow() {
  const to = route();
  hideTip();
  chooseCollection(to.c);
  warnOfCollection();
  const isOther = to.view !== shownView;
  if (isOther) showOnly(to.view);
  if (isOther || to.view === "ask") views[to.view].show(to);
  else if (to.view === "documents") documents.showOther();
  renderNavigation(to);
  if (isOther && document.activeElement === document.body) byId(to.view === "ask" ? "question" : `${to.view}-title`).focus();
  if (to.d === undefined) source.hide();
  else source.show({ ...to, c: store.collection, quote: ask.quoteAt(to) });
  views[to.view].markSource?.();
}

function warnOfCollection() {
  const isKnown = !store.collections.length || store.collections.some((each) => each.name === store.collection);
  notify(isKnown ? "" : t("app.no_collection", { name: store.collection }), { isBad: true });
}

function renderNavigation({ view }) {
  document.title = t("app.title", { page: t(`nav.${view}`) });
  for (const link of byId("navigation").children) {
    const isHere = link.dataset.view === view;
    link.toggleAttribute("aria-current", isHere);
    if (isHere) link.setAttribute("aria-current", "page");
    if (link.dataset.view === "ask") link.href = isHere ? "#/ask" : ask.address();
  }
}

// The bar

function renderTools() {
  const language = byId("language");
  language.textContent = t("app.other_language");
  language.lang = language.textContent === "English" ? "en" : "nl";
  byId("sign-out").hidden = !asksForKey();
  byId("navigation").hidden = store.session === null;
  byId("collection-tool").hidden = store.session === null;
  if (isStarted) renderNavigation(route());
}

function renderCollections() {
  const names = store.collections.map((each) => each.name);
  if (store.collection && !names.includes(store.collection)) names.push(store.collection);
  const select = byId("collection");
  select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  select.value = store.collection;
}

function switchCollection() {
  go({ view: route().view, c: byId("collection").value });
}

function skip(event) {
  event.preventDefault(); // its address would be taken for a view
  byId("main").focus();
}

/** Escape undoes the nearest thing: what is being written, a quote on show, the document beside. */
function onKey(event) {
  if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (ask.isBusy() && shownView === "ask") ask.stop();
  else if (!hideTip() && source.isOpen()) source.close();
}

// Signing out

function signOut() {
  leave();
}

/** Back to the sign-in form; nothing of this person's stays in the page. */
function leave(reason = "") {
  isStarted = false;
  session.forget();
  store.session = null;
  store.collections = [];
  hideTip();
  for (const id of ["quote", "announcer"]) byId(id).replaceChildren();
  source.hide();
  source.forget();
  for (const part of [ask, uploads, evaluations, documents]) part.forget();
  notify("");
  renderTools();
  showOnly("sign-in");
  signIn.show(reason);
}

start();
