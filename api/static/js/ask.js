// The view where questions are asked: the box, the answer while it is written, what was asked before.

import { answerNodes, markOpen } from "./answer.js";
import * as api from "./api.js";
import { CodePoints } from "./codepoints.js";
import { copyFrom, showText } from "./dialogs.js";
import { announce, byId, el, icon } from "./dom.js";
import { onLanguage, t } from "./i18n.js";
import { asMarkdown } from "./markdown.js";
import { absolute, go, href } from "./routes.js";
import { collectionInfo, onCollections, store } from "./store.js";

const STORED = "vraagbaak.history";
const KEPT = 50;

/** Questions of this session by address, newest last; answers are kept as long as the page is. */
const asked = new Map(restored());
let current = null;
let rendered = null;
let examples = { collection: "", questions: {} };

export function setUp() {
  const question = byId("question");
  byId("ask-form").addEventListener("submit", submit);
  byId("stop").addEventListener("click", stop);
  byId("history-clear").addEventListener("click", clearHistory);
  question.addEventListener("input", fit);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit(event);
  });
  onLanguage(() => {
    render();
    renderStart();
  });
  onCollections(renderStart);
  renderStart();
}

/** Whether an answer is being written. */
export const isBusy = () => current?.state === "asking";

export function stop() {
  if (!isBusy()) return;
  byId("question").value = current.question; // to say it better
  current.controller.abort();
}

// Asking

function submit(event) {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (!question) {
    byId("question").focus();
    return;
  }
  askAnew({ view: "ask", c: store.collection, q: question, style: byId("style").value === "short" ? "short" : "" });
}

/** Asks even where there is an answer already. */
function askAnew(to) {
  asked.delete(addressOf(to));
  current?.controller.abort();
  current = null;
  if (location.hash === href(to)) show(to);
  else go(to);
}

const addressOf = ({ c, q, style }) => href({ view: "ask", c, q, style });

/** Shows the view for an address; a question in it is asked unless its answer is there. */
export function show(to) {
  const wanted = { ...to, c: store.collection };
  if (to.q !== undefined && current?.address === addressOf(wanted)) {
    if (rendered !== current) render();
    markOpen(byId("answer"));
    return;
  }
  current?.controller.abort();
  current = null;
  if (to.q === undefined) {
    render();
    return;
  }
  byId("question").value = "";
  byId("style").value = to.style === "short" ? "short" : "full";
  begin(wanted);
}

function begin(to) {
  const address = addressOf(to);
  const known = asked.get(address);
  current = known?.answer ? known : { address, ...to, question: to.q, state: "asking", text: "", passages: null };
  current.controller = new AbortController();
  asked.delete(address);
  asked.set(address, current);
  keep();
  render();
  fit();
  if (current.state === "asking") follow(current);
}

async function follow(asking) {
  announce(t("answer.searching"));
  try {
    const body = { question: asking.question, collection: asking.c, style: asking.style === "short" ? "short" : "full" };
    for await (const event of api.ask(body, asking.controller.signal)) take(asking, event);
    asking.state = "done";
    announce(spoken(asking.answer));
  } catch (error) {
    asking.state = error.name === "AbortError" ? "stopped" : "failed";
    asking.error = error;
    announce(asking.state === "stopped" ? t("answer.announced_stop") : error.shown ?? String(error));
  }
  if (current === asking) render();
}

function take(asking, { name, data }) {
  if (name === "passages") asking.passages = data.passages;
  else if (name === "token") asking.text = new CodePoints(asking.text).slice(0, data.start) + data.text;
  else if (name === "done") asking.answer = data;
  if (current === asking && name !== "citation") renderWriting(asking);
}

const spoken = (answer) =>
  answer.abstained ? answer.text : t("answer.announced", { text: answer.text, count: answer.citations.length });

// Showing

function render() {
  const root = byId("answer");
  const isAsked = current !== null;
  rendered = current;
  document.body.classList.toggle("has-answer", isAsked);
  root.hidden = !isAsked;
  byId("question").placeholder = t(isAsked ? "ask.another" : "ask.placeholder");
  byId("stop").hidden = !isBusy();
  byId("ask").hidden = isBusy();
  renderHistory();
  byId("examples").hidden = isAsked || !Object.keys(shownExamples()).length;
  root.setAttribute("aria-busy", String(isBusy()));
  if (!isAsked) {
    root.replaceChildren();
    return;
  }
  const title = el("h2", { class: "asked", id: "asked", tabindex: "-1" }, current.question);
  root.replaceChildren(title, ...bodyOf(current).filter(Boolean));
  markOpen(root);
}

function bodyOf(asking) {
  const written = el("div", { class: "answer-text", id: "written" }, asking.text);
  if (asking.state === "done") return [...answerNodes(asking.answer, routeOf(asking)), tools(asking)];
  if (asking.state === "failed") return [problem(asking.error), again(asking)];
  if (asking.state === "stopped") return [asking.text && written, el("p", { class: "soft" }, t("answer.stopped")), again(asking)];
  written.classList.add("writing");
  const spinner = el("span", { class: "spinner", "aria-hidden": "true" });
  return [el("p", { class: "working" }, spinner, el("span", { id: "stage" }, stageOf(asking))), written];
}

/** Only what changes while an answer arrives. */
function renderWriting(asking) {
  const written = byId("written");
  if (written === null || asking.state !== "asking") return;
  written.textContent = asking.text;
  const stage = stageOf(asking);
  if (byId("stage").textContent !== stage) byId("stage").textContent = stage;
}

function stageOf({ text, passages }) {
  if (text) return t("answer.writing");
  return passages === null ? t("answer.searching") : t("answer.reading", { count: passages.length });
}

const problem = (error) =>
  el("div", { class: "problem" }, el("b", {}, t("answer.failed")), el("p", {}, error.shown ?? String(error)));

function button(name, words, onclick) {
  return el("button", { type: "button", class: "plain", onclick }, icon(name), el("span", {}, words));
}

const again = (asking) => el("div", { class: "answer-tools" }, askingButtons(asking));

function askingButtons(asking) {
  const edit = () => {
    byId("question").value = asking.question;
    byId("question").focus();
    fit();
  };
  return [
    button("pencil", t("ask.edit"), edit),
    button("again", t("answer.again"), () => askAnew(routeOf(asking))),
  ];
}

const routeOf = ({ c, q, style }) => ({ view: "ask", c, q, style });

function tools(asking) {
  const copy = (event) => copyFrom(event.currentTarget, {
    title: t("answer.markdown"), text: asMarkdown(asking.answer), fileName: "answer.md", type: "text/markdown",
  });
  const json = () => showText({
    title: "JSON", text: JSON.stringify(asking.answer, null, 2), fileName: "answer.json", type: "application/json",
  });
  const link = (event) => copyFrom(event.currentTarget, {
    title: t("answer.link_title"), text: absolute(asking.address), fileName: "link.txt", type: "text/plain",
  });
  return el(
    "div",
    { class: "answer-tools", role: "group", "aria-label": t("answer.tools") },
    button("copy", t("answer.copy"), copy),
    button("link", t("answer.link"), link),
    button("braces", t("answer.json"), json),
    askingButtons(asking),
  );
}

/** After a document was opened or closed beside the answer. */
export const markSource = () => markOpen(byId("answer"));

/** Where the present question is, for the way back from another view. */
export const address = () => current?.address ?? "#/ask";

/** The words that the answer on show quotes from that place, if it does. */
export const quoteAt = ({ d, s, e }) =>
  current?.answer?.citations.find((each) =>
    each.document_id === d && String(each.source_start) === s && String(each.source_end) === e)?.quote;

/** The box grows with its text. */
function fit() {
  const area = byId("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

// Examples

export async function loadExamples() {
  examples = await api.examples();
  renderStart();
}

const shownExamples = () => (examples.collection === store.collection ? examples.questions : {});

function renderStart() {
  const lists = Object.entries(shownExamples()).map(([language, questions]) => {
    const links = questions.map((q) =>
      el("li", {}, el("a", { href: href({ view: "ask", c: store.collection, q }), lang: language }, q)));
    return el("div", {}, el("h3", {}, t(`ask.examples_${language}`)), el("ul", {}, links));
  });
  byId("examples-lists").replaceChildren(...lists);
  byId("examples").hidden = current !== null || !lists.length;
  document.querySelector(".hero p").textContent =
    collectionInfo()?.documents === 0 ? t("ask.empty") : t("ask.subtitle");
}

// History

function restored() {
  const kept = JSON.parse(sessionStorage.getItem(STORED) ?? "[]");
  return kept.map((each) => [each.address, { ...each, question: each.q }]);
}

function keep() {
  const kept = [...asked.values()].slice(-KEPT).map(({ address, c, q, style }) => ({ address, c, q, style }));
  sessionStorage.setItem(STORED, JSON.stringify(kept));
}

function clearHistory() {
  asked.clear();
  keep();
  renderHistory();
  byId("question").focus();
}

/** On signing out: nothing of what was asked stays behind. */
export function forget() {
  current?.controller?.abort();
  current = null;
  byId("question").value = "";
  clearHistory();
  render();
}

function renderHistory() {
  const items = [...asked.values()].reverse().map((each) => {
    const isCurrent = each === current && "true";
    return el("li", {}, el("a", { href: each.address, "aria-current": isCurrent }, each.q));
  });
  byId("history-list").replaceChildren(...items);
  byId("history").hidden = [...asked.values()].every((each) => each === current);
}

