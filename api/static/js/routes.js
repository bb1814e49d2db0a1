// Addresses: `#/ask?c=collection&q=question&style=short&d=document&s=start&e=end`. With `d` a document is open beside.

const VIEWS = ["ask", "documents", "evaluations"];

export function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const view = VIEWS.includes(path) ? path : path === "source" ? "documents" : "ask";
  return { view, ...Object.fromEntries(new URLSearchParams(query ?? "")) };
}

export function href({ view, ...parameters }) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

/** The present address with a document open, at a place in it where one is given. */
export function sourceHref(document, start, end, base = route()) {
  return href({ ...base, d: document, s: start, e: end });
}

/** The present address without the document. */
export function closedHref() {
  return href({ ...route(), d: undefined, s: undefined, e: undefined });
}

export const go = (to) => {
  location.hash = href(to);
};

export const absolute = (hash) => `${location.origin}${location.pathname}${hash}`;
