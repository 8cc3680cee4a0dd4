/** What is kept over a reload of the page, by workflow and node. */
import { app } from "../../scripts/app.js";

/** One kind of content, in the session's storage. */
export class Stored {
  constructor(key) {
    this.key = key;
  }

  get(node) {
    return JSON.parse(sessionStorage.getItem(this.nameOf(node)));
  }

  set(node, content) {
    sessionStorage.setItem(this.nameOf(node), JSON.stringify(content));
  }

  remove(node) {
    sessionStorage.removeItem(this.nameOf(node));
  }

  nameOf(node) {
    return `${this.key} ${app.graph.id} ${node.graph.id} ${node.id}`;
  }
}
