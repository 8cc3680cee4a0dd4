/** Which nodes of the graph are this pack's. */
import { app } from "../../scripts/app.js";

const [FOLDER] = new URL(import.meta.url).pathname.split("/extensions/")[1].split("/");
const MODULE = `custom_nodes.${decodeURIComponent(FOLDER)}`;

/** Whether the node belongs to this pack; its category says so in English alone. */
export function isOurs(node) {
  return node.constructor.nodeData?.python_module === MODULE;
}

/** Whether it is a measuring node, which puts its figures out as TABLE. */
export function isMeasuring(node) {
  return isOurs(node) && node.constructor.nodeData.output_name.includes("TABLE");
}

/** The look of a panel in a node, at most `height` pixels high. */
export function panelStyle(height) {
  return `
    box-sizing: border-box;
    max-height: ${height}px;
    overflow: auto;
    padding: 6px 10px;
    border-radius: 6px;
    background: var(--comfy-input-bg);
    color: var(--input-text);
    font: 12px/1.5 sans-serif;
  `;
}

/** What the schema says of a node's input, by the input's name. */
export function optionsOf(node, name) {
  const { required, optional } = node.constructor.nodeData.input;
  return { ...required, ...optional }[name][1];
}

/** All nodes of the workflow, those in subgraphs too, whichever of its graphs is shown. */
export function allNodes() {
  return graphs().flatMap((graph) => graph.nodes);
}

/** The node that outputs belong to: their id is the node's own, behind its subgraph's, or the path of nodes around it. */
export function findNode(outputId) {
  const path = String(outputId).split(":");
  const own = path.pop();
  const inside = (graph, step) => app.graph.subgraphs?.get(step) ?? graph?.getNodeById(step)?.subgraph;
  return path.reduce(inside, app.graph)?.getNodeById(own);
}

/** The nodes that stand for a subgraph in the graphs around it. */
export function containersOf(graph) {
  return allNodes().filter((node) => node.subgraph === graph);
}

function graphs() {
  return [app.graph, ...(app.graph.subgraphs?.values() ?? [])];
}
