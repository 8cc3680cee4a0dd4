/** What a user takes along from a node's figures: their text, and the files that they are saved in. */
import { api } from "../../scripts/api.js";
import { textOf } from "./texts.js";

/** A row with a button that copies the text, and a link to each file. */
export function takeAway(markdown, files) {
  const row = document.createElement("div");
  row.style.cssText = "display: flex; flex-wrap: wrap; gap: 4px 12px; margin-bottom: 8px;";
  if (navigator.clipboard) row.append(copyButton(markdown)); // which a page has that came over https or from localhost
  row.append(...files.map(fileLink));
  return row;
}

function copyButton(text) {
  const button = document.createElement("button");
  button.textContent = textOf("copy");
  button.title = textOf("copying");
  button.style.cursor = "pointer";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = textOf("copied");
  });
  return button;
}

function fileLink({ filename, subfolder, type }) {
  const link = document.createElement("a");
  link.href = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  link.download = filename;
  link.textContent = filename.split("_").pop().replace(/^\./, "").toUpperCase();
  link.title = textOf("saved", { file: [subfolder, filename].filter(Boolean).join("/") });
  link.style.color = "inherit";
  return link;
}
