/** Which nodes of the graph are this pack's. */

const CATEGORY = "unlearning";

/** Whether the node belongs to this pack. */
export function isOurs(node) {
  const category = node.constructor.nodeData?.category ?? "";
  return category === CATEGORY || category.startsWith(`${CATEGORY}/`);
}

/** Whether it is a measuring node, which puts its figures out as TABLE. */
export function isMeasuring(node) {
  return isOurs(node) && node.constructor.nodeData.output_name.includes("TABLE");
}
