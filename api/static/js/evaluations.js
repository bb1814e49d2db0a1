// The view of evaluations: choose or drop a set, run it, follow it, open its report, compare two.

import * as api from "./api.js";
import { compareNodes } from "./comparison.js";
import { announce, byId, el, pause, showError } from "./dom.js";
import { acceptsDrops } from "./drops.js";
import { number, onLanguage, problemTitle, t, time } from "./i18n.js";
import { asksForKey, mayWrite, store } from "./store.js";

const POLL = 1000;
const FINAL = ["done", "cancelled", "failed"];
const OWN = "*";
/** Stands for the chosen file among the sets; no set can be called so. */
const SHOWN_SCORES = 8;

let sets = [];
let runs = [];
let own = null;
let compared = null;
let isPolling = false;
const picked = new Set();

export function setUp() {
  byId("evaluation-form").addEventListener("submit", start);
  byId("choose-set").addEventListener("click", () => byId("evaluation-file").click());
  byId("evaluation-file").addEventListener("change", () => take(byId("evaluation-file").files[0]));
  byId("compare").addEventListener("click", compare);
  acceptsDrops(byId("evaluation-form"), mayWrite, (transfer) => take(transfer.files[0]));
  onLanguage(render);
}

export async function show() {
  render();
  try {
    sets = await api.evaluationSets();
    await poll();
  } catch (error) {
    showError(byId("evaluation-error"), error.shown ?? String(error));
  }
}

/** On signing out. */
export function forget() {
  own = null;
  compared = null;
  runs = [];
  picked.clear();
  render();
}

// Running

async function take(file) {
  if (file === undefined) return;
  own = { name: file.name, text: await file.text() };
  byId("evaluation-file").value = "";
  renderSets(OWN);
  announce(t("evaluations.chosen", { name: file.name }));
}

async function start(event) {
  event.preventDefault();
  const set = byId("evaluation-set").value;
  if (!set) {
    byId("evaluation-file").click();
    return;
  }
  const limit = Number(byId("evaluation-limit").value) || null;
  const what = set === OWN ? { name: own.name.slice(0, 100), jsonl: own.text } : { set };
  showError(byId("evaluation-error"), "");
  try {
    const run = await api.startEvaluation({
      ...what,
      collection: store.collection,
      style: byId("evaluation-style").value,
      retrieval_only: byId("evaluation-retrieval").checked,
      limit,
    });
    announce(t("evaluations.started", { name: run.name }));
    await poll();
  } catch (error) {
    showError(byId("evaluation-error"), error.shown ?? String(error));
  }
}

/** Looks until nothing runs any more, or the view is left. */
async function poll() {
  if (isPolling) {
    refreshed(await api.evaluations());
    return;
  }
  isPolling = true;
  try {
    do {
      refreshed(await api.evaluations());
      if (runs.every(isOver)) break;
      await pause(POLL);
    } while (!byId("view-evaluations").hidden);
  } finally {
    isPolling = false;
  }
}

const isOver = (run) => FINAL.includes(run.state);

function refreshed(found) {
  for (const run of found) {
    const before = runs.find((each) => each.id === run.id);
    if (before && !isOver(before) && isOver(run)) announce(t("evaluations.finished", { name: run.name }));
  }
  runs = found;
  render();
}

async function cancel(run) {
  try {
    await api.cancelEvaluation(run.id);
    await poll();
  } catch (error) {
    showError(byId("evaluation-error"), error.shown ?? String(error));
  }
}

async function compare() {
  const [after, before] = runs.filter((run) => picked.has(run.id)); // newest first
  const root = byId("comparison");
  try {
    compared = { before, after, found: await api.compareEvaluations(before.id, after.id) };
    render();
    byId("comparison-title").focus();
  } catch (error) {
    root.hidden = false;
    root.replaceChildren(el("p", { class: "error", role: "alert" }, error.shown ?? String(error)));
  }
}

// Showing

function render() {
  byId("evaluation-form").hidden = !mayWrite();
  renderSets(byId("evaluation-set").value);
  renderRuns();
  byId("runs-none").hidden = runs.length > 0;
  byId("compare-row").hidden = runs.filter((run) => run.state === "done").length < 2;
  renderCompare();
  byId("comparison").hidden = compared === null;
  byId("comparison").replaceChildren(...(compared ? compareNodes(compared) : []));
}

/** The list is made anew every second while something runs; the focus stays where it was. */
function renderRuns() {
  const focused = document.activeElement.dataset?.focus;
  byId("runs").replaceChildren(...runs.map(item));
  if (focused) byId("runs").querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

function renderSets(wanted) {
  const options = sets.map(({ name, cases }) =>
    el("option", { value: name }, t("evaluations.set_option", { name, count: cases })));
  if (own) options.push(el("option", { value: OWN }, t("evaluations.own", { name: own.name })));
  if (!options.length) options.push(el("option", { value: "" }, t("evaluations.no_sets")));
  const select = byId("evaluation-set");
  select.replaceChildren(...options);
  if (wanted && options.some((option) => option.value === wanted)) select.value = wanted;
}

function item(run) {
  return el(
    "li",
    { class: "card run", "data-id": run.id },
    el("div", { class: "run-head" },
      el("h3", {}, run.name),
      el("span", { class: "soft" }, `${time(run.created_at)} · ${run.collection}`),
      run.retrieval_only ? el("span", { class: "soft" }, t("evaluations.search_only")) : null,
      el("span", { class: run.state === "failed" ? "error" : "soft" }, stateOf(run))),
    run.error ? el("p", { class: "error" }, reason(run.error)) : null,
    isOver(run) ? null : bar(run),
    scores(run),
    buttons(run),
  );
}

const reason = (problem) =>
  `${problemTitle({ slug: problem.type.split(":").pop(), title: problem.title })}: ${problem.detail}`;

function stateOf({ state, progress }) {
  if (state !== "running") return t(`evaluations.${state}`);
  const remaining = progress.remaining_s === null ? "" : `, ${t("evaluations.remaining", { time: span(progress.remaining_s) })}`;
  return t("evaluations.running", progress) + remaining;
}

const span = (seconds) =>
  seconds < 90
    ? t("evaluations.seconds", { count: Math.ceil(seconds) })
    : t("evaluations.minutes", { count: Math.ceil(seconds / 60) });

const bar = ({ name, progress }) => el("progress", {
  max: progress.total || 1,
  value: progress.total ? progress.done : null,
  "aria-label": t("evaluations.progress", { name }),
});

function scores(run) {
  const shown = Object.entries(run.scores).slice(0, SHOWN_SCORES);
  const crashed = run.progress.crashed
    ? [el("div", { class: "error" }, el("dt", {}, t("evaluations.crashed", { count: run.progress.crashed })))]
    : [];
  if (!shown.length && !crashed.length) return null;
  return el("dl", { class: "run-scores" },
    shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, number(value, 3)))), crashed);
}

function buttons(run) {
  const stop = el("button", { type: "button", "data-focus": `stop ${run.id}`, onclick: () => cancel(run) }, t("evaluations.cancel"));
  return el(
    "div",
    { class: "buttons" },
    !isOver(run) && mayWrite() ? stop : null,
    run.state === "done" ? report(run) : null,
    run.state === "done" ? pick(run) : null,
  );
}

function report(run) {
  const path = `/v1/evaluations/${run.id}/report`;
  const onclick = asksForKey() && ((event) => {
    event.preventDefault();
    api.openInTab(path).catch((error) => showError(byId("evaluation-error"), error.shown ?? String(error)));
  });
  return el("a", { class: "button", href: path, target: "_blank", rel: "noopener", onclick, "data-focus": `report ${run.id}` },
    t("evaluations.report"), el("span", { class: "visually-hidden" }, t("evaluations.new_tab")));
}

function pick(run) {
  const box = el("input", {
    type: "checkbox",
    "data-focus": `pick ${run.id}`,
    "aria-label": t("evaluations.pick", { name: run.name, time: time(run.created_at) }),
    onchange: () => {
      if (box.checked) picked.add(run.id);
      else picked.delete(run.id);
      renderCompare();
    },
  });
  box.checked = picked.has(run.id);
  return el("label", { class: "check" }, box, t("evaluations.pick_short"));
}

function renderCompare() {
  const isPair = runs.filter((run) => picked.has(run.id)).length === 2;
  byId("compare").disabled = !isPair;
  byId("compare-hint").hidden = isPair;
}
