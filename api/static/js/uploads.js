// Files on their way in: sent one at a time, each followed until the service says what became of it.

import * as api from "./api.js";
import { announce, byId, el, pause } from "./dom.js";
import { onLanguage, percent, problemTitle, t } from "./i18n.js";

const POLL = 500;
const FINAL = ["added", "replaced", "unchanged", "failed", "cancelled"];
const ended = (item) => FINAL.includes(item.state);

const items = [];
let isSending = false;
let isFollowing = false;
let aborting = new AbortController();
let whenDone = () => {};

export function setUp(onDone) {
  whenDone = onDone;
  byId("cancel-uploads").addEventListener("click", cancel);
  byId("clear-uploads").addEventListener("click", clear);
  onLanguage(render);
}

export const isBusy = () => items.some((item) => !ended(item));

/** Adds files, as `{file, path}`, to what is to be sent to a collection. */
export function add(collection, files) {
  for (const { file, path } of files) {
    items.push({ collection, file, path, state: "pending", share: 0, job: null, reasons: [], node: null });
  }
  render();
  sendAll();
}

async function sendAll() {
  if (isSending) return;
  isSending = true;
  for (let item = nextToSend(); item !== undefined; item = nextToSend()) await send(item);
  isSending = false;
}

const nextToSend = () => items.find((item) => item.state === "pending");

async function send(item) {
  update(item, { state: "sending", share: 0 });
  try {
    const options = { onProgress: (share) => update(item, { share }), signal: aborting.signal };
    item.job = (await api.upload(item.collection, item.file, item.path, options)).id;
    update(item, { state: "waiting" });
    followAll();
  } catch (error) {
    if (error.name === "AbortError") update(item, { state: "cancelled" });
    else if (error.retryAfter) await again(item, error.retryAfter);
    else fail(item, error.status === 0 ? t("upload.broken_off") : error.shown ?? String(error));
    finishIfDone();
  }
}

/** The service is busy and said when to come back. */
async function again(item, seconds) {
  update(item, { state: "pending" });
  await pause(seconds * 1000);
}

async function followAll() {
  if (isFollowing) return;
  isFollowing = true;
  for (let item = nextToFollow(); item !== undefined; item = nextToFollow()) {
    await follow(item);
    if (!ended(item)) await pause(POLL);
  }
  isFollowing = false;
  finishIfDone();
}

/** Jobs are done in the order of their arrival, so the first one open is the one to look at. */
const nextToFollow = () => items.find((item) => item.job !== null && !ended(item));

async function follow(item) {
  try {
    take(item, await api.job(item.job));
  } catch (error) {
    if (error.status === 0 || error.retryAfter) return;
    fail(item, error.shown ?? String(error));
  }
}

function take(item, job) {
  const file = job.files[0];
  const problem = file?.error ?? job.error;
  if (job.state === "failed" || file?.state === "failed") {
    fail(item, problem ? reason(problem) : "");
    return;
  }
  const isOver = job.state === "done" || job.state === "cancelled";
  update(item, { state: file?.state ?? (isOver ? job.state : "waiting") });
}

const reason = (problem) => {
  const slug = problem.type.split(":").pop();
  return `${problemTitle({ slug, title: problem.title })}: ${problem.detail}`;
};

const fail = (item, why) => update(item, { state: "failed", reasons: [why] });

function finishIfDone() {
  if (!items.length || isBusy()) return;
  const failed = items.filter((item) => item.state === "failed").length;
  const added = items.filter((item) => ["added", "replaced", "unchanged"].includes(item.state)).length;
  announce(t("upload.done", { added, failed }));
  renderButtons();
  whenDone();
}

async function cancel() {
  aborting.abort();
  aborting = new AbortController();
  const open = items.filter((item) => item.job !== null && !ended(item));
  for (const item of items) if (item.state === "pending") update(item, { state: "cancelled" });
  for (const item of open) {
    // One that finished in the meantime can't be cancelled; its fate is shown as it is.
    await api.cancelJob(item.job).catch((error) => { if (error.status !== 409) fail(item, error.shown); });
  }
  finishIfDone();
}

function clear() {
  items.splice(0, items.length, ...items.filter((item) => !ended(item)));
  render();
  byId("choose-files").focus();
}

/** On signing out. */
export function forget() {
  aborting.abort();
  aborting = new AbortController();
  items.length = 0;
  render();
}

// Showing

function update(item, change) {
  Object.assign(item, change);
  fill(item);
  renderButtons();
}

function render() {
  byId("uploads").replaceChildren(...items.map((item) => {
    item.node = el("li");
    fill(item);
    return item.node;
  }));
  renderButtons();
}

function renderButtons() {
  byId("uploads").hidden = !items.length;
  byId("cancel-uploads").hidden = !isBusy();
  byId("clear-uploads").hidden = !items.some(ended);
}

function fill(item) {
  if (item.node === null) return;
  item.node.className = item.state;
  item.node.replaceChildren(
    el("span", { class: "name" }, item.path),
    el("span", { class: "state" }, t(`upload.${item.state}`, { percent: percent(item.share) })),
    ...(ended(item) ? [] : [bar(item)]),
    ...item.reasons.map((why) => el("p", { class: "error" }, why)),
  );
}

function bar(item) {
  const label = t("upload.progress", { name: item.path });
  const value = item.state === "sending" ? item.share : item.state === "pending" ? 0 : null;
  return el("progress", { max: 1, value, "aria-label": label });
}

/** Files of a drop, also those in folders, as `{file, path}`. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const files = [...transfer.files].map((file) => ({ file, path: file.name }));
  if (entries.every((entry) => entry === null || entry.isFile)) return files;
  return (await Promise.all(entries.filter((entry) => entry !== null).map(inside))).flat();
}

async function inside(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return file.name.startsWith(".") ? [] : [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break; // a reader gives a hundred at a time
    found.push(...some);
  }
  return (await Promise.all(found.map(inside))).flat();
}
