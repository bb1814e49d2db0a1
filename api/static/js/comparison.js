// Two evaluations side by side: the difference of each metric with its interval, and the cases that changed.

import { el } from "./dom.js";
import { number, t, time } from "./i18n.js";

const OVERALL = "all";

export function compareNodes({ before, after, found }) {
  const name = (run) => `${run.name}, ${time(run.created_at)}`;
  const rows = Object.entries(found.differences).flatMap(([metric, groups]) =>
    groups[OVERALL] ? [row(metric, groups[OVERALL])] : []);
  return [
    el("h2", { id: "comparison-title", tabindex: "-1" }, t("comparison.title")),
    el("p", { class: "soft" }, `${name(before)} → ${name(after)} · ${t("comparison.shared", { count: found.shared })}`),
    el("div", { class: "table", role: "group", tabindex: "0", "aria-labelledby": "comparison-title" },
      el("table", {}, head(), el("tbody", {}, rows))),
    flips(found.flips),
  ];
}

function head() {
  const columns = ["metric", "before", "after", "difference", "interval", "p"];
  return el("thead", {}, el("tr", {}, columns.map((name) => el("th", { scope: "col" }, t(`comparison.${name}`)))));
}

const shown = (value) => (value === null ? "–" : number(value, 3));
const signed = (value) => (value === null ? "–" : (value > 0 ? "+" : "") + number(value, 3));

function row(metric, { before, after, difference, low, high, p }) {
  const isClear = low !== null && high !== null && (low > 0 || high < 0);
  return el("tr", {},
    el("th", { scope: "row" }, metric),
    el("td", {}, shown(before)),
    el("td", {}, shown(after)),
    el("td", { class: isClear && "clear" }, signed(difference)),
    el("td", {}, low === null ? "–" : `${signed(low)} … ${signed(high)}`),
    el("td", {}, shown(p)));
}

function flips(found) {
  const title = t("comparison.flips", { count: found.length });
  if (!found.length) return el("p", { class: "soft" }, title);
  const items = found.map((flip) => el("li", {},
    el("b", {}, flip.question),
    el("p", {}, `${answered(flip.answer_before)} → ${answered(flip.answer_after)} `,
      el("span", { class: "soft" }, t(flip.after > flip.before ? "comparison.better" : "comparison.worse")))));
  return el("details", {}, el("summary", {}, title), el("ul", { class: "flips" }, items));
}

const answered = (text) => text || t("comparison.no_answer");
