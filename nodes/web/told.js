/**
 * What the server says under a node, where the workflow that is shown is the one that runs. The last of it stays over a
 * reload of the page.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isOfShown } from "./jobs.js";
import { allNodes, findNode, isOurs } from "./nodes.js";
import { Stored } from "./stored.js";

const EVENT = "unlearning.told";
const SHOWN = "progress_text"; // ComfyUI's own event, whose text is shown under a node
const stored = new Stored("Unlearning.Told");

app.registerExtension({
  name: "Unlearning.Told",

  setup() {
    api.addEventListener(EVENT, ({ detail: { node: nodeId, text, prompt_id } }) => {
      const node = findNode(nodeId);
      if (!node || !isOurs(node) || !isOfShown(prompt_id)) return;
      stored.set(node, { nodeId, text });
      api.dispatchCustomEvent(SHOWN, { nodeId, text });
    });
  },

  afterConfigureGraph() {
    for (const node of allNodes()) {
      const told = stored.get(node);
      if (told) api.dispatchCustomEvent(SHOWN, told);
    }
  },
});
