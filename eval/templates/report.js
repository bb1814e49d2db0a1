"use strict";
const choice = document.getElementById("kind");
const shown = document.getElementById("shown");
const cases = Array.from(document.querySelectorAll(".case"));
function filter() {
  let count = 0;
  for (const element of cases) {
    element.hidden = choice.value !== "" && element.dataset.kind !== choice.value;
    count += element.hidden ? 0 : 1;
  }
  shown.textContent = count + " of " + cases.length;
}
if (choice) {
  choice.closest(".filter").hidden = false;
  choice.addEventListener("change", filter);
  filter();
}
