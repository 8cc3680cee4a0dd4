/** What was said under a node last, which stays over a reload of the page. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isOfShown } from "./jobs.js";
import { allNodes, findNode, isOurs } from "./nodes.js";
import { Stored } from "./stored.js";

const EVENT = "progress_text";
const stored = new Stored("Unlearning.Told");

app.registerExtension({
  name: "Unlearning.Told",

  setup() {
    api.addEventListener(EVENT, ({ detail: { nodeId, text, prompt_id } }) => {
      const node = findNode(nodeId);
      if (node && isOurs(node) && isOfShown(prompt_id)) stored.set(node, { nodeId, text });
    });
  },

  afterConfigureGraph() {
    for (const node of allNodes()) {
      const told = stored.get(node);
      if (told) api.dispatchCustomEvent(EVENT, told);
    }
  },
});
