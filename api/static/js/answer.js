// One answer as elements: the text with its markers, how sure it is, its sources, the passages considered.

import { el, icon } from "./dom.js";
import { number, percent, t } from "./i18n.js";
import { light, showsQuote } from "./quotes.js";
import { route, sourceHref } from "./routes.js";
import { markers } from "./spans.js";

const HIGH = 0.7;
const MIDDLE = 0.4;

/** All of a finished answer below its question; `base` is the question's route, which links to sources keep. */
export function answerNodes(answer, base) {
  if (answer.abstained) return [abstention(answer), confidence(answer), passages(answer.passages, base, true)];
  return [
    answerText(answer, base),
    confidence(answer),
    sources(answer, base),
    passages(answer.passages, base, false),
  ];
}

/** The attributes of a link to a citation's place. */
const toCitation = ({ document_id, source_start, source_end }, place, base) => ({
  href: sourceHref(document_id, source_start, source_end, base),
  "data-place": place,
  "data-source": `${source_start} ${source_end} ${document_id}`,
});

function answerText(answer, base) {
  const root = el("div", { class: "answer-text", lang: answer.language });
  for (const { text, claims, isUnsupported, citations, gap } of markers(answer)) {
    const classes = [claims.length && "claim", isUnsupported && "unsupported"].filter(Boolean).join(" ");
    const piece = classes ? el("span", { class: classes, "data-claims": claims.join(" ") }, text) : text;
    root.append(piece, ...citations.map((citation) => chip(answer, citation, root, base)), ...(gap ? [gapNote(gap)] : []));
  }
  return root;
}

function chip(answer, citation, root, base) {
  const place = answer.citations.indexOf(citation);
  const attributes = { class: "chip", ...toCitation(citation, place, base), "aria-label": citationLabel(citation) };
  const node = el("a", attributes, `[${citation.number}]`);
  showsQuote(node, citation, { onShow: () => light(root, place), restore: () => markOpen(root.parentElement) });
  return node;
}

function citationLabel(citation) {
  const page = citation.page === null ? "" : `, ${t("answer.page", { page: citation.page })}`;
  return `[${citation.number}] ${t("answer.citation", { number: citation.number, title: citation.title })}${page}`;
}

function gapNote(gap) {
  return el(
    "span",
    { class: "unsupported-note", title: t(`answer.${gap}_note`) },
    icon("warning"),
    ` ${t(`answer.${gap}`)}`,
  );
}

function abstention(answer) {
  const nearest = answer.passages.length ? t("answer.abstained") : t("answer.abstained_none");
  return el(
    "div",
    { class: "abstained" },
    el("p", { class: "answer-text", lang: answer.language }, icon("none"), answer.text),
    el("p", {}, nearest),
  );
}

function confidence(answer) {
  const steps = answer.confidence >= HIGH ? 3 : answer.confidence >= MIDDLE ? 2 : 1;
  const words = t(["answer.low", "answer.middle", "answer.high"][steps - 1]);
  const seconds = t("answer.time", { seconds: number(answer.timings.total_s ?? 0, 1) });
  if (answer.abstained) return el("p", { class: "confidence" }, seconds);
  return el(
    "p",
    { class: "confidence" },
    el("span", { class: "level", "aria-hidden": "true" }, [1, 2, 3].map((at) => el("i", { class: at <= steps && "on" }))),
    el("b", {}, words),
    el("span", {}, t("answer.chance", { percent: percent(answer.confidence) })),
    el("span", {}, seconds),
  );
}

function sources(answer, base) {
  const items = answer.citations.map((citation, place) => el("li", {}, source(citation, place, base)));
  return el(
    "section",
    { "aria-labelledby": "sources-title" },
    el("h3", { class: "small-title", id: "sources-title" }, t("answer.sources")),
    el("ol", { class: "citations" }, items),
  );
}

function source(citation, place, base) {
  const page = citation.page === null ? null : el("span", {}, ` · ${t("answer.page", { page: citation.page })}`);
  return el(
    "a",
    { class: "citation", ...toCitation(citation, place, base) },
    el("span", { class: "number" }, String(citation.number)),
    el("span", { class: "where" }, citation.title, page),
    el("q", {}, citation.quote),
  );
}

function passages(found, base, isOpen) {
  if (!found.length) return null;
  const title = isOpen ? "answer.nearest" : "answer.passages";
  return el(
    "details",
    { class: "passages", open: isOpen },
    el("summary", {}, t(title, { count: found.length })),
    el("ol", {}, found.map((passage) => el("li", { class: "passage" }, passageNodes(passage, base)))),
  );
}

function passageNodes({ number: place, title, language, hit }, base) {
  const { chunk } = hit;
  const heading = chunk.heading ? ` · ${chunk.heading}` : "";
  return [
    el("span", { class: "number" }, String(place)),
    el("span", {}, el("a", { href: sourceHref(chunk.document_id, chunk.start, chunk.end, base) }, title),
      el("span", { class: "soft" }, heading)),
    el("p", { class: "text", lang: language }, chunk.text),
    el("p", { class: "scores" }, t("answer.scores", {
      score: number(hit.score, 3), dense: rank(hit.dense_rank), lexical: rank(hit.lexical_rank),
    })),
  ];
}

const rank = (place) => (place === null ? t("answer.no_rank") : t("answer.rank", { rank: place }));

/** Marks what belongs to the document that is open: its marker, its source and its part of the answer. */
export function markOpen(root) {
  const { d, s, e } = route();
  const open = `${s} ${e} ${d}`;
  let place = null;
  for (const link of root.querySelectorAll("a[data-place]")) {
    const isOpen = link.dataset.source === open;
    link.toggleAttribute("aria-current", isOpen);
    if (!isOpen) continue;
    link.setAttribute("aria-current", "true");
    place ??= link.dataset.place;
  }
  light(root, place);
}
