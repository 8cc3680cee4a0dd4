/** What is kept over a reload of the page, by workflow and node. */
import { app } from "../../scripts/app.js";

function nameOf(node) {
  return `${app.graph.id} ${node.graph.id} ${node.id}`;
}

/** One kind of content, in the session's storage. */
export class Stored {
  constructor(key) {
    this.key = key;
  }

  all() {
    return JSON.parse(sessionStorage.getItem(this.key) ?? "{}");
  }

  get(node) {
    return this.all()[nameOf(node)];
  }

  set(node, content) {
    sessionStorage.setItem(this.key, JSON.stringify({ ...this.all(), [nameOf(node)]: content }));
  }
}
