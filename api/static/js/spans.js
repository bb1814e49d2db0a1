// An answer's text, cut where something begins or ends: a sentence, or the part that a citation supports.

import { CodePoints } from "./codepoints.js";

/**
 * Pieces in the order of the text: `{text, claims, isUnsupported, citations, gap}`. `claims` are the places (in
 * `answer.citations`) of the citations that support the piece, `citations` those that end with it. `gap` is null, or
 * where an unsupported sentence ends: "unsupported" without any citation, "weak" with one.
 */
export function markers(answer) {
  const points = new CodePoints(answer.text);
  const cuts = new Set([0, points.length]);
  for (const sentence of answer.sentences) cuts.add(sentence.start).add(sentence.end);
  for (const citation of answer.citations) cuts.add(citation.answer_start).add(citation.answer_end);
  const places = [...cuts].filter((cut) => cut >= 0 && cut <= points.length).sort((a, b) => a - b);
  return places.slice(1).map((end, place) => piece(answer, points, places[place], end));
}

function piece(answer, points, start, end) {
  const claims = answer.citations.flatMap((each, place) =>
    each.answer_start <= start && end <= each.answer_end ? [place] : []);
  const sentence = answer.sentences.find((each) => each.start <= start && end <= each.end);
  const isUnsupported = !answer.abstained && sentence !== undefined && !sentence.supported;
  const isCited = sentence !== undefined &&
    answer.citations.some((each) => each.answer_start < sentence.end && sentence.start < each.answer_end);
  return {
    text: points.slice(start, end),
    claims,
    isUnsupported,
    citations: answer.citations.filter((each) => each.answer_end === end),
    gap: isUnsupported && sentence.end === end ? (isCited ? "weak" : "unsupported") : null,
  };
}
