/**
 * Lays out the measuring nodes: short prompt boxes, their figures as tables, and the rest for pictures. Figures that are
 * no longer those of what the workflow says are grey, with a word why. They survive a reload of the page.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ENDS, isOfShown, isRunning } from "./jobs.js";
import { allNodes, containersOf, findNode, isMeasuring, panelStyle } from "./nodes.js";
import { Stored } from "./stored.js";
import { render, renderText } from "./tables.js";
import { takeAway } from "./takeaway.js";
import { textOf } from "./texts.js";

const WIDGET = "figures";
const PROMPTS_HEIGHT = 140;
const LEAST_HEIGHT = 200;
const MOST_HEIGHT = { classic: 300, vue: 160 }; // Vue nodes are higher, and would grow out of their group
const stored = new Stored("Unlearning.Figures");
const mostHeight = () => MOST_HEIGHT[LiteGraph.vueNodesMode ? "vue" : "classic"];

/**
 * A node's figures as shown: their Markdown, the files that they are saved in, the settings that they belong to, and why
 * they are out of date (a name in texts.js), if so.
 */
class Figures {
  constructor(node) {
    this.node = node;
    this.element = document.createElement("div");
    this.markdown = "";
    this.files = [];
    this.settings = "";
    this.outdated = "";
    this.draw();
  }

  show(markdown, settings, files = []) {
    Object.assign(this, { markdown, settings, files, outdated: "" });
    this.draw();
  }

  outdate(reason) {
    if (!this.markdown || this.outdated === reason) return;
    this.outdated = reason;
    stored.set(this.node, { ...stored.get(this.node), outdated: reason });
    this.draw();
  }

  draw() {
    this.element.style.cssText = `${panelStyle(mostHeight())} user-select: text;`;
    const blocks = this.markdown ? render(this.markdown) : [renderText(textOf("waiting"))];
    if (this.markdown) blocks.splice(1, 0, takeAway(this.markdown, this.files));
    for (const block of blocks) block.style.opacity = this.outdated ? "0.4" : "";
    const reason = this.outdated ? [renderText(textOf(this.outdated))] : [];
    const live = this.node.live ? [this.node.live.element] : []; // pictures of the run that works
    this.element.replaceChildren(...reason, ...live, ...blocks);
  }
}

/** The nodes behind a node's inputs; at the edge of a subgraph, those that stand for it outside. */
function sourcesOf(node) {
  const behind = ({ link }, slot) => (link == null ? [] : (node.getInputNode(slot) ?? containersOf(node.graph)));
  return (node.inputs ?? []).flatMap(behind);
}

/** What the figures of a node depend on: the widgets of it, of all that leads to it, and of what these hold. */
function settingsOf(node, seen = new Set()) {
  if (seen.has(node)) return [];
  seen.add(node);
  const widgets = (node.widgets ?? []).filter((widget) => widget.serialize !== false && widget.options?.serialize !== false);
  const own = [node.type, node.mode, widgets.map((widget) => [widget.name, widget.value])];
  const others = [...sourcesOf(node), ...(node.subgraph?.nodes ?? [])];
  return [own, ...others.flatMap((other) => settingsOf(other, seen))];
}

function settingsText(node) {
  return JSON.stringify(settingsOf(node));
}

function addFigures(node) {
  node.figures = new Figures(node);
  const widget = node.addDOMWidget(WIDGET, "UNLEARNING_FIGURES", node.figures.element, {
    serialize: false, // not in the prompt
    getMinHeight: () => LEAST_HEIGHT,
    getMaxHeight: mostHeight,
    getValue: () => node.figures.markdown,
    setValue: () => {},
  });
  widget.serialize = false; // not in the saved workflow
}

/** ComfyUI shares a node's free height evenly among text boxes and picture; this leaves it to the figures and picture. */
function limitPrompts(node) {
  for (const widget of node.widgets) {
    if (widget.type === "customtext") widget.options.getMaxHeight = () => PROMPTS_HEIGHT;
  }
}

function measuringNodes() {
  return allNodes().filter((node) => node.figures);
}

/** What a node put out, under the id that ComfyUI's messages name it by, when the settings were these. */
function showFigures(node, id, output, settings) {
  node.live?.clear();
  node.figures.show(output.text[0], settings, [...(output.images ?? []), ...(output.report ?? [])]);
  stored.set(node, { id, output, settings });
}

/** Figures that come back with a workflow: those that were shown here before are as out of date as they were. */
function restoreFigures(node, id, output) {
  const { settings, outdated, ...known } = stored.get(node) ?? {};
  if (known.output?.text[0] !== output.text[0]) return showFigures(node, id, output, settingsText(node));
  showFigures(node, id, output, settings);
  if (isRunning()) node.figures.outdate("running");
  else if (outdated && outdated !== "changed") node.figures.outdate("stopped");
  else if (settings !== settingsText(node)) node.figures.outdate("changed");
}

function outdateAll(reason) {
  for (const node of measuringNodes()) node.figures.outdate(reason);
}

app.registerExtension({
  name: "Unlearning.Figures",

  setup() {
    api.addEventListener("executed", ({ detail: { node: id, output, prompt_id } }) => {
      const node = findNode(id);
      if (!node?.figures || !output?.text || !prompt_id || !isOfShown(prompt_id)) return;
      showFigures(node, id, output, node.startSettings ?? settingsText(node));
    });
    api.addEventListener("execution_start", ({ detail }) => {
      if (!isOfShown(detail.prompt_id)) return;
      for (const node of measuringNodes()) node.startSettings = settingsText(node);
      outdateAll("running");
    });
    for (const event of ENDS) {
      api.addEventListener(event, () => {
        for (const { figures } of measuringNodes()) if (figures.outdated === "running") figures.outdate("stopped");
      });
    }
    api.addEventListener("graphChanged", () => {
      for (const node of measuringNodes()) {
        const { figures } = node;
        const same = figures.settings === settingsText(node);
        if (!same && !figures.outdated) figures.outdate("changed");
        if (same && figures.outdated === "changed") figures.show(figures.markdown, figures.settings, figures.files);
      }
    });
  },

  nodeCreated(node) {
    if (!isMeasuring(node)) return;
    limitPrompts(node);
    addFigures(node);
  },

  afterConfigureGraph() {
    for (const node of measuringNodes()) {
      const { id, output } = stored.get(node) ?? {};
      if (!output || node.figures.markdown) continue;
      api.dispatchCustomEvent("executed", { node: id, display_node: id, output }); // ComfyUI shows the picture again
      restoreFigures(node, id, output);
    }
  },

  /** Outputs that come back with a workflow: from the queue's history, or when its tab is opened again. */
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) {
      const node = findNode(id);
      if (node?.figures && output.text) restoreFigures(node, id, output);
    }
  },
});
