// An answer as Markdown, to paste into a memo: markers in the text, and below it each quote with its place.

import { t } from "./i18n.js";
import { markers } from "./spans.js";

/** Text that stays text wherever it is pasted. */
export const escaped = (text) => text.replace(/[\\`*_[\]<>#|~]/g, "\\$&").replace(/\s+/g, " ").trim();

export function asMarkdown(answer) {
  const lines = [`**${escaped(answer.question)}**`, "", body(answer)];
  if (answer.citations.length) lines.push("", `${t("answer.sources")}:`, "");
  for (const citation of answer.citations) lines.push(sourceLine(citation));
  return `${lines.join("\n")}\n`;
}

function body(answer) {
  return markers(answer)
    .map(({ text, citations, gap }) => {
      const numbers = citations.map((citation) => ` [${citation.number}]`).join("");
      return edged(text) + numbers + (gap === null ? "" : ` (${t(`answer.${gap}`)})`);
    })
    .join("");
}

/** Escaped, but with the spaces at both ends that hold it apart from its neighbours. */
const edged = (text) => text.match(/^\s*/)[0] + escaped(text) + (text.trim() ? text.match(/\s*$/)[0] : "");

function sourceLine(citation) {
  const page = citation.page === null ? "" : `, ${t("answer.page", { page: citation.page })}`;
  const source = citation.source && citation.source !== citation.title ? ` (${escaped(citation.source)})` : "";
  return `- [${citation.number}] ${escaped(citation.title)}${page}: “${escaped(citation.quote)}”${source}`;
}
