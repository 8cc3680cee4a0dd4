/** Markdown of this pack's reports, as elements. */

/** The tables of `markdown`; other blocks become paragraphs. */
export function render(markdown) {
  return markdown.split("\n\n").map((block) => (block.startsWith("|") ? renderTable(block) : renderText(block)));
}

/** A paragraph. */
export function renderText(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  return paragraph;
}

function renderTable(block) {
  const [head, , ...body] = block.split("\n");
  const table = document.createElement("table");
  table.style.cssText = "width: 100%; margin-bottom: 8px; border-collapse: collapse;";
  for (const line of [head, ...body]) {
    const row = table.insertRow();
    row.style.borderBottom = "1px solid var(--border-color)";
    for (const [column, text] of cells(line).entries()) {
      const cell = document.createElement(line === head ? "th" : "td");
      cell.textContent = text;
      cell.style.cssText = "padding: 1px 8px 1px 0; text-align: left;";
      if (column && line !== head) cell.style.whiteSpace = "nowrap"; // an interval is one line
      row.append(cell);
    }
  }
  return table;
}

/** A row's texts; a backslash stands before each | and \ that belongs to one. */
function cells(line) {
  return line.match(/(?:\\.|[^\\|])+/g).map((text) => text.trim().replace(/\\(.)/g, "$1"));
}
