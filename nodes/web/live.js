/**
 * What a node shows while it works: the loss as a curve, small pictures of the base and of the model now, and a button
 * that ends training and keeps the patch so far. The last of them stay, over a reload of the page too.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ENDS, isOfShown } from "./jobs.js";
import { allNodes, findNode, isMeasuring, isOurs, panelStyle } from "./nodes.js";
import { Stored } from "./stored.js";
import { textOf } from "./texts.js";

const EVENT = "unlearning.live";
const STOP = "/unlearning/stop";
const WIDGET = "live";
const HEIGHT = { curve: 130, pictures: 250 };
const CURVE = { width: 300, height: 48, margin: 3 };
const SVG = "http://www.w3.org/2000/svg";
const stored = new Stored("Unlearning.Live");

/** An element with text, styles and children. */
function make(tag, { text, style = "", ...attributes } = {}, children = []) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.style.cssText = style;
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

/** The curve's points in CURVE's box, the lowest value at the bottom. */
function points(losses) {
  const least = Math.min(...losses);
  const range = Math.max(...losses) - least || 1;
  const { width, height, margin } = CURVE;
  const place = (loss, index) => [
    (width * index) / Math.max(losses.length - 1, 1),
    height - margin - ((height - 2 * margin) * (loss - least)) / range,
  ];
  return losses.map((loss, index) => place(loss, index).map((each) => each.toFixed(1)).join());
}

function drawCurve(losses) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${CURVE.width} ${CURVE.height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.style.cssText = `display: block; width: 100%; height: ${CURVE.height}px;`;
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", points(losses).join(" "));
  line.setAttribute("fill", "none");
  line.setAttribute("stroke", "currentColor");
  line.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(line);
  return svg;
}

function drawPair({ prompt, base, now }) {
  const pictures = [base, now].map((src, index) =>
    src
      ? make("img", { src, alt: `${index ? "now" : "base"}: ${prompt}`, style: "width: 100%; aspect-ratio: auto;" })
      : make("span"),
  );
  const grid = make("div", { style: "display: grid; grid-template-columns: 1fr 1fr; gap: 4px;" }, pictures);
  const caption = { text: prompt, title: prompt, style: "overflow: hidden; text-overflow: ellipsis; white-space: nowrap;" };
  return make("div", { style: "flex: 1 1 0; min-width: 0; max-width: 280px;" }, [grid, make("div", caption)]);
}

/** A node's curve, pictures and button; it is filled by messages, each of which replaces what it has. */
class Live {
  constructor(node) {
    this.node = node;
    this.element = make("div", { style: panelStyle(HEIGHT.pictures) });
    this.content = {};
  }

  get height() {
    return this.content.pairs ? HEIGHT.pictures : HEIGHT.curve;
  }

  show(content) {
    this.content = { ...this.content, ...content };
    const { losses, step, steps, pairs, seen, training } = this.content;
    const children = [];
    if (losses?.length) children.push(make("div", { text: textOf("loss", { step, steps }) }), drawCurve(losses));
    if (pairs) {
      const row = make("div", { style: "display: flex; gap: 8px;" }, pairs.map(drawPair));
      children.push(make("div", { text: textOf(seen ? "seen" : "pairs", { seen }) }), row);
    }
    if (training) children.push(this.stopButton());
    this.element.replaceChildren(...children);
    this.element.hidden = false;
    if (!isMeasuring(this.node)) this.makeRoom();
  }

  makeRoom() {
    const [width, height] = this.node.size;
    this.node.setSize([width, Math.max(height, this.node.computeSize()[1])]);
    app.canvas.setDirty(true); // a panel has its place once the canvas is drawn
  }

  stopButton() {
    const { prompt_id, node: node_id } = this.content;
    const button = make("button", {
      text: textOf("stop"),
      title: textOf("stopping"),
      style: "margin-top: 4px; cursor: pointer;",
      disabled: this.asked === prompt_id,
    });
    button.addEventListener("click", () => {
      this.asked = prompt_id;
      button.disabled = true;
      api.fetchApi(STOP, { method: "POST", body: JSON.stringify({ prompt_id, node_id }) });
    });
    return button;
  }

  clear() {
    this.content = {};
    this.element.replaceChildren();
    this.element.hidden = true;
  }

  end() {
    if (this.content.training) this.show({ training: false });
  }
}

/** Measuring nodes have the pictures where their figures will be, until these come; the others a place of their own. */
function liveOf(node) {
  node.live ??= new Live(node);
  const { element } = node.live;
  if (isMeasuring(node)) {
    if (!node.figures.element.contains(element)) node.figures.draw();
  } else if (!node.widgets.some((widget) => widget.name === WIDGET)) {
    const widget = node.addDOMWidget(WIDGET, "UNLEARNING_LIVE", element, {
      serialize: false, // not in the prompt
      getMinHeight: () => node.live.height,
      getMaxHeight: () => node.live.height,
      getValue: () => "",
      setValue: () => {},
    });
    widget.serialize = false; // not in the saved workflow
  }
  return node.live;
}

app.registerExtension({
  name: "Unlearning.Live",

  setup() {
    api.addEventListener(EVENT, ({ detail }) => {
      const node = findNode(detail.node);
      if (!node || !isOurs(node) || !isOfShown(detail.prompt_id)) return;
      const live = liveOf(node);
      if (live.content.prompt_id !== detail.prompt_id) live.clear();
      live.show(detail);
      if (!isMeasuring(node)) stored.set(node, { ...live.content, training: false });
    });
    // A node that ComfyUI has in its cache does not work, and keeps what it shows.
    api.addEventListener("executing", ({ detail }) => {
      const node = detail && isOfShown() && findNode(detail);
      if (!node?.live) return;
      node.live.clear();
      stored.remove(node);
    });
    for (const event of ENDS) {
      api.addEventListener(event, () => {
        for (const node of allNodes()) node.live?.end();
      });
    }
  },

  afterConfigureGraph() {
    for (const node of allNodes()) {
      const content = stored.get(node);
      if (content && !node.live) liveOf(node).show(content);
    }
  },
});
