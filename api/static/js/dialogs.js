// The three dialogs: are you sure, a name, a text to copy or save.

import { announce, byId, showError } from "./dom.js";
import { t } from "./i18n.js";

/** Resolves to whether the person said yes. Cancel has the focus: Enter by habit deletes nothing. */
export function confirmed({ title, text, yes }) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = yes;
  byId("confirm-yes").onclick = () => dialog.close("yes");
  byId("confirm-no").onclick = () => dialog.close("no");
  dialog.returnValue = "no";
  dialog.showModal();
  byId("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

/** Asks for a collection's name and hands it to `make`, whose error is shown in the dialog. */
export function askName(make) {
  const dialog = byId("ask-name");
  const input = byId("collection-name");
  const error = byId("collection-name-error");
  input.value = "";
  showError(error, "");
  byId("ask-name-cancel").onclick = () => dialog.close();
  byId("ask-name-form").onsubmit = async (event) => {
    event.preventDefault();
    try {
      await make(input.value.trim());
      dialog.close();
    } catch (failure) {
      showError(error, failure.shown ?? String(failure));
      input.focus();
    }
  };
  dialog.showModal();
}

/** A text to read, copy and save; also what copying falls back to where the browser doesn't allow it. */
export function showText({ title, text, fileName, type }) {
  const dialog = byId("text-dialog");
  const area = byId("text-dialog-text");
  const save = byId("text-dialog-save");
  const url = URL.createObjectURL(new Blob([text], { type }));
  byId("text-dialog-title").textContent = title;
  area.value = text;
  save.href = url;
  save.download = fileName;
  byId("text-dialog-copy").onclick = async () => {
    area.select();
    if (await copied(text)) announce(t("answer.copied"));
  };
  byId("text-dialog-close").onclick = () => dialog.close();
  dialog.onclose = () => URL.revokeObjectURL(url);
  dialog.showModal();
  area.setSelectionRange(0, 0);
}

/** Whether the text is on the clipboard now: browsers refuse on a page that isn't secure. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Copies, and says so on the button for a moment; where that isn't allowed, shows the text to copy by hand. */
export async function copyFrom(button, { title, text, fileName, type }) {
  if (!(await copied(text))) {
    showText({ title, text, fileName, type });
    return;
  }
  announce(t("answer.copied"));
  const label = button.lastElementChild;
  const words = label.textContent;
  label.textContent = t("answer.copied");
  setTimeout(() => { label.textContent = words; }, 2000);
}
