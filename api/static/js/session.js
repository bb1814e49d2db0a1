// The API key: in this tab's session storage only, and gone when the tab is.

const STORED = "vraagbaak.key";

export const key = () => sessionStorage.getItem(STORED) ?? "";
export const keep = (text) => sessionStorage.setItem(STORED, text);
export const forget = () => sessionStorage.removeItem(STORED);
