/** Gives the prompt boxes of this pack's nodes room for several lines, also when ComfyUI shrinks a node on loading. */
import { app } from "../../scripts/app.js";
import { isOurs } from "./nodes.js";

const HEIGHT = 140;

app.registerExtension({
  name: "Unlearning.Prompts",

  nodeCreated(node) {
    if (!isOurs(node)) return;
    for (const widget of node.widgets ?? []) {
      if (widget.type === "customtext") widget.options.getMinHeight = () => HEIGHT;
    }
  },
});
