/** Lays out the measuring nodes: short prompt boxes, their figures as tables, and the rest for pictures. */
import { app } from "../../scripts/app.js";
import { isMeasuring } from "./nodes.js";

const WIDGET = "figures";
const WAITING = "Run the workflow: the figures come here.";
const PROMPTS_HEIGHT = 140;
const FIGURES_HEIGHT = 215;
const STYLE = `
  box-sizing: border-box;
  max-height: ${FIGURES_HEIGHT}px;
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
  return markdown.split("\n\n").map((block) => (block.startsWith("|") ? renderTable(block) : renderText(block)));
}

function renderTable(block) {
  const [head, , ...body] = block.split("\n");
  const table = document.createElement("table");
  table.style.cssText = "width: 100%; margin-bottom: 8px; border-collapse: collapse;";
  for (const line of [head, ...body]) {
    const row = table.insertRow();
    row.style.borderBottom = "1px solid var(--border-color)";
    for (const text of cells(line)) {
      const cell = document.createElement(line === head ? "th" : "td");
      cell.textContent = text;
      cell.style.cssText = "padding: 1px 8px 1px 0; text-align: left;";
      row.append(cell);
    }
  }
  return table;
}

/** A row's texts; a backslash stands before each | and \ that belongs to one. */
function cells(line) {
  return line.match(/(?:\\.|[^\\|])+/g).map((text) => text.trim().replace(/\\(.)/g, "$1"));
}

function renderText(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  return paragraph;
}

function addFigures(node) {
  const element = document.createElement("div");
  element.style.cssText = STYLE;
  let shown;
  const widget = node.addDOMWidget(WIDGET, "UNLEARNING_FIGURES", element, {
    serialize: false, // not in the prompt
    getMinHeight: () => FIGURES_HEIGHT,
    getMaxHeight: () => FIGURES_HEIGHT,
    getValue: () => shown,
    setValue: (markdown) => {
      shown = markdown;
      element.replaceChildren(...render(markdown));
    },
  });
  widget.serialize = false; // not in the saved workflow
  widget.value = WAITING;
}

/** ComfyUI shares a node's free height evenly among text boxes and picture; this leaves it to the picture. */
function limitPrompts(node) {
  for (const widget of node.widgets) {
    if (widget.type === "customtext") widget.options.getMaxHeight = () => PROMPTS_HEIGHT;
  }
}

function showFigures(node, output) {
  node.widgets.find((widget) => widget.name === WIDGET).value = output.text[0];
}

app.registerExtension({
  name: "Unlearning.Figures",

  nodeCreated(node) {
    if (!isMeasuring(node)) return;
    limitPrompts(node);
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
      if (node && isMeasuring(node)) showFigures(node, output);
    }
  },
});
