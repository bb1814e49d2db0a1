// Dropping files on a part of the page, and nowhere else: a file that misses must not replace the page.

/** Calls `take(dataTransfer)` for what is dropped on the node while `isAllowed()`. */
export function acceptsDrops(node, isAllowed, take) {
  let depth = 0;
  const highlight = (change) => {
    depth = Math.max(0, depth + change);
    node.classList.toggle("over", depth > 0 && isAllowed());
  };
  node.addEventListener("dragenter", () => highlight(1));
  node.addEventListener("dragleave", () => highlight(-1));
  node.addEventListener("drop", (event) => {
    highlight(-depth);
    if (isAllowed()) take(event.dataTransfer);
  });
}

export function setUp() {
  for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => event.preventDefault());
  }
}
