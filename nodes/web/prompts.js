/** Gives the prompt boxes of this pack's nodes room for several lines, also when ComfyUI shrinks a node on loading. */
import { app } from "../../scripts/app.js";

const NODES = [
  "UnlearnConcept",
  "RetentionMetric",
  "ForgettingMetric",
  "CLIPScoreFrechet",
  "CompareMethods",
  "CLIPJudge",
  "DiffusionClassifierJudge",
];
const HEIGHT = 140;

app.registerExtension({
  name: "Unlearning.Prompts",

  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    for (const widget of node.widgets) {
      if (widget.type === "customtext") widget.options.getMinHeight = () => HEIGHT;
    }
  },
});
