/** Shows the Retention Metric's figures as tables in its node, below the picture sheet's inputs. */
import { app } from "../../scripts/app.js";

const WIDGET = "figures";
const STYLE = `
  overflow: auto;
  padding: 6px 10px;
  border-radius: 6px;
  background: var(--comfy-input-bg);
  color: var(--input-text);
  font: 12px/1.5 sans-serif;
  user-select: text;
`;

/** The Markdown tables of `markdown` as elements; other lines become paragraphs. */
function render(markdown) {
  return markdown.split("\n\n").map((block) => (block.startsWith("|") ? renderTable(block.split("\n")) : renderText(block)));
}

function renderTable([head, , ...body]) {
  const table = document.createElement("table");
  table.style.cssText = "width: 100%; margin-bottom: 8px; border-collapse: collapse;";
  for (const line of [head, ...body]) {
    const row = table.insertRow();
    row.style.borderBottom = "1px solid var(--border-color)";
    for (const text of line.slice(1, -1).split("|")) {
      const cell = document.createElement(line === head ? "th" : "td");
      cell.textContent = text.trim();
      cell.style.cssText = "padding: 1px 8px 1px 0; text-align: left;";
      row.append(cell);
    }
  }
  return table;
}

function renderText(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  return paragraph;
}

function addFigures(node) {
  const element = document.createElement("div");
  element.style.cssText = STYLE;
  let shown = "";
  const widget = node.addDOMWidget(WIDGET, "RETENTION_FIGURES", element, {
    serialize: false, // not in the prompt
    getMinHeight: () => 190,
    getMaxHeight: () => 190,
    getValue: () => shown,
    setValue: (markdown) => {
      shown = markdown;
      element.replaceChildren(...render(markdown));
    },
  });
  widget.serialize = false; // not in the saved workflow
}

function showFigures(node, output) {
  node.widgets.find((widget) => widget.name === WIDGET).value = output.text[0];
}

app.registerExtension({
  name: "Unlearning.RetentionMetric",

  nodeCreated(node) {
    if (node.comfyClass !== "RetentionMetric") return;
    addFigures(node);
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output) {
      onExecuted?.call(this, output);
      showFigures(this, output);
    };
  },

  /** Outputs that come back with a workflow: from the queue's history, or when its tab is opened again. */
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) {
      const node = app.graph.getNodeById(id);
      if (node?.comfyClass === "RetentionMetric") showFigures(node, output);
    }
  },
});
