// The quote behind a marker, shown while it is pointed at or focused; the part of the answer it supports lights up.

import { byId, el } from "./dom.js";
import { t } from "./i18n.js";

let hiding = 0;

/** Lights up the pieces of the answer that the citation at `place` supports, and no others. */
export function light(root, place) {
  for (const claim of root.querySelectorAll(".claim")) {
    claim.classList.toggle("lit", place !== null && claim.dataset.claims.split(" ").includes(String(place)));
  }
}

/** Makes a marker show its citation. `restore` lights up again what was lit before. */
export function showsQuote(chip, citation, { onShow, restore }) {
  const show = () => {
    onShow();
    showTip(chip, citation);
  };
  const hide = () => {
    restore();
    hiding = setTimeout(hideTip, 150);
  };
  chip.addEventListener("mouseenter", show);
  chip.addEventListener("focus", show);
  chip.addEventListener("mouseleave", hide);
  chip.addEventListener("blur", hide);
  chip.setAttribute("aria-describedby", "quote");
}

function showTip(chip, citation) {
  clearTimeout(hiding);
  const tip = byId("quote");
  const page = citation.page === null ? "" : `, ${t("answer.page", { page: citation.page })}`;
  tip.replaceChildren(el("q", {}, shortened(citation.quote)), el("p", {}, citation.title + page));
  tip.hidden = false;
  tip.onmouseenter = () => clearTimeout(hiding);
  tip.onmouseleave = hideTip;
  place(tip, chip.getBoundingClientRect());
}

const shortened = (quote) => {
  const text = quote.replace(/\s+/g, " ");
  return text.length > 420 ? `${text.slice(0, 400)}…` : text;
};

function place(tip, beside) {
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(beside.left - 12, 8), window.innerWidth - box.width - 8);
  const fitsBelow = beside.bottom + box.height + 8 < window.innerHeight;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${fitsBelow ? beside.bottom + 6 : Math.max(beside.top - box.height - 6, 8)}px`;
}

/** Whether there was one to hide. */
export function hideTip() {
  clearTimeout(hiding);
  const tip = byId("quote");
  const wasShown = !tip.hidden;
  tip.hidden = true;
  return wasShown;
}
