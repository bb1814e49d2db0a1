// What the whole page knows: who asks, and which collection.

import * as api from "./api.js";

export const store = {
  session: null,
  collections: [],
  collection: "",
};

export const mayWrite = () => store.session !== null && store.session.role !== "read";
export const mayAdminister = () => store.session !== null && store.session.role === "admin";
export const asksForKey = () => store.session !== null && store.session.authentication === "key";

const CHOSEN = "vraagbaak.collection";
const changes = new EventTarget();

/** Calls the listener after the collections, their sizes or the choice of one have changed. */
export const onCollections = (listener) => changes.addEventListener("change", listener);

export async function loadCollections() {
  store.collections = await api.collections();
  changes.dispatchEvent(new Event("change"));
}

export const collectionInfo = () => store.collections.find((each) => each.name === store.collection);

/** The collection of an address, else the one chosen last, else "default", else the first. */
export function chooseCollection(asked) {
  const names = store.collections.map((each) => each.name);
  const wished = [asked, sessionStorage.getItem(CHOSEN), "default", names[0]];
  const chosen = asked ?? wished.find((name) => names.includes(name)) ?? "default";
  sessionStorage.setItem(CHOSEN, chosen);
  if (chosen === store.collection) return;
  store.collection = chosen;
  changes.dispatchEvent(new Event("change"));
}
