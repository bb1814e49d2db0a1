// Signing in with an API key, and out again.

import * as api from "./api.js";
import { announce, byId, showError } from "./dom.js";
import { t } from "./i18n.js";
import { forget, keep, key } from "./session.js";
import { store } from "./store.js";

/** `onSignedIn` is called once the service knows the key. */
export function setUp(onSignedIn) {
  byId("sign-in-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await isKnown(byId("key").value.trim())) onSignedIn();
    else byId("key").focus();
  });
}

/** Shows the form; `reason` says why, where the person was signed in a moment ago. */
export function show(reason = "") {
  byId("key").value = "";
  showError(byId("key-error"), reason);
  byId("key").focus();
}

async function isKnown(text) {
  const error = byId("key-error");
  showError(error, "");
  if (!text) {
    showError(error, t("sign_in.empty"));
    return false;
  }
  keep(text);
  try {
    store.session = await api.session();
  } catch (failure) {
    forget();
    showError(error, failure.status === 401 ? t("sign_in.unknown") : failure.shown ?? String(failure));
    return false;
  }
  byId("key").value = "";
  announce(t("sign_in.done", { name: store.session.name }));
  return true;
}

export const isKept = () => key() !== "";
