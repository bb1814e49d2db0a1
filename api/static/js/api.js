// The service, as functions. Every failure is an ApiError that says what to tell the person.

import { problemTitle, t } from "./i18n.js";
import { key } from "./session.js";
import { events } from "./sse.js";

export class ApiError extends Error {
  /** From problem details (RFC 9457), or from nothing where the service can't be reached. */
  constructor(status, problem = {}, retryAfter = 0) {
    super(problem.detail ?? problem.title ?? String(status));
    this.status = status;
    this.slug = (problem.type ?? "").split(":").pop();
    this.title = problem.title ?? "";
    this.detail = problem.detail ?? "";
    this.retryAfter = retryAfter;
  }

  /** One text for a person: title in their language, the service's own reason, when to try again. */
  get shown() {
    if (this.status === 0) return t(`error.${this.slug || "network"}`);
    const retry = this.retryAfter ? t("error.retry", { seconds: this.retryAfter }) : "";
    return [problemTitle(this) && `${problemTitle(this)}:`, `${this.detail}.`.replace(/\.\.$/, "."), retry]
      .filter(Boolean)
      .join(" ");
  }
}

const brokenOff = () => new ApiError(0, { type: "broken_stream" });

const whenSignedOut = new EventTarget();
/** Calls the listener when the service asks for a key, or no longer knows the one that was sent. */
export const onSignedOut = (listener) => whenSignedOut.addEventListener("signed-out", listener);

const authorization = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

async function request(method, path, { json, signal } = {}) {
  const headers = authorization();
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: json && JSON.stringify(json), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const retryAfter = Number(response.headers.get("Retry-After") ?? 0);
  return refused(response.status, await response.text(), retryAfter);
}

function refused(status, body, retryAfter) {
  if (status === 401) whenSignedOut.dispatchEvent(new Event("signed-out"));
  return new ApiError(status, problemOf(body), retryAfter);
}

function problemOf(body) {
  try {
    return JSON.parse(body);
  } catch {
    return { detail: body.slice(0, 300) }; // a proxy's page, say
  }
}

const json = async (...values) => (await request(...values)).json();
const inCollection = (name) => `/v1/collections/${encodeURIComponent(name)}`;
const inDocuments = (name, id) => `${inCollection(name)}/documents/${encodeURIComponent(id)}`;

export const session = () => json("GET", "/v1/session");
export const examples = () => json("GET", "/v1/examples");
export const collections = async () => (await json("GET", "/v1/collections")).collections;
export const collection = (name) => json("GET", inCollection(name));
export const createCollection = (name) => json("POST", "/v1/collections", { json: { name } });
export const deleteCollection = (name) => request("DELETE", inCollection(name));

export const documents = (name, query) =>
  json("GET", `${inCollection(name)}/documents?${new URLSearchParams(query)}`);
export const document = (name, id, signal) => json("GET", inDocuments(name, id), { signal });
export const deleteDocument = (name, id) => request("DELETE", inDocuments(name, id));
export const originalPath = (name, id, disposition) =>
  `${inCollection(name)}/originals/${encodeURIComponent(id)}?disposition=${disposition}`;

export const job = (id) => json("GET", `/v1/jobs/${id}`);
export const jobs = async (name) =>
  (await json("GET", `/v1/jobs?${new URLSearchParams({ collection: name, limit: 500 })}`)).jobs;
export const cancelJob = (id) => request("DELETE", `/v1/jobs/${id}`);

export const evaluationSets = async () => (await json("GET", "/v1/evaluations/sets")).sets;
export const evaluations = async () => (await json("GET", "/v1/evaluations")).evaluations;
export const startEvaluation = (body) => json("POST", "/v1/evaluations", { json: body });
export const cancelEvaluation = (id) => request("DELETE", `/v1/evaluations/${id}`);
export const compareEvaluations = (before, after) => json("GET", `/v1/evaluations/${before}/compare/${after}`);

/** Whether questions can be answered: "" or the reason that they can't yet. Needs no key. */
export async function notReady() {
  let response;
  try {
    response = await fetch("/readyz", { cache: "no-store" });
  } catch {
    throw new ApiError(0);
  }
  const { checks } = await response.json();
  return response.ok ? "" : Object.values(checks).find((check) => check !== "ok" && check !== "unknown") ?? "?";
}

/** Yields the events of an answer; aborting the signal stops the generation. */
export async function* ask(body, signal) {
  const response = await request("POST", "/v1/ask", { json: { ...body, stream: true }, signal });
  let isOver = false;
  try {
    for await (const event of events(response)) {
      if (event.name === "error") throw new ApiError(event.data.status, event.data);
      isOver ||= event.name === "done";
      yield event;
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw brokenOff();
  }
  if (!isOver) throw brokenOff();
}

/** Sends one file; resolves to its job. XMLHttpRequest, because fetch can't tell how far an upload is. */
export function upload(name, file, path, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    const form = new FormData();
    form.append("files", file, path);
    call.open("POST", `${inCollection(name)}/documents`);
    for (const [header, value] of Object.entries(authorization())) call.setRequestHeader(header, value);
    call.upload.onprogress = (event) => onProgress(event.total ? event.loaded / event.total : 0);
    call.onload = () => {
      if (call.status === 202) resolve(JSON.parse(call.responseText));
      else reject(refused(call.status, call.responseText, Number(call.getResponseHeader("Retry-After") ?? 0)));
    };
    call.onerror = () => reject(new ApiError(0));
    call.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => call.abort());
    call.send(form);
  });
}

const ticketFor = async (path) => (await json("POST", "/v1/tickets", { json: { path } })).url;

/**
 * Opens a path of the service in a new tab, where keys are on: by a ticket. The tab is opened first, since browsers
 * allow that only in answer to a click.
 */
export async function openInTab(path, fragment = "") {
  const tab = window.open("", "_blank");
  if (tab === null) return;
  tab.opener = null;
  try {
    tab.location.replace((await ticketFor(path)) + fragment);
  } catch (error) {
    tab.close();
    throw error;
  }
}

/** Saves what is at a path of the service, where keys are on: by a ticket. */
export async function download(path) {
  const link = window.document.createElement("a");
  link.href = await ticketFor(path);
  link.download = "";
  link.click();
}
