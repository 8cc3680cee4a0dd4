/**
 * The prompt boxes of this pack's nodes: room for several lines, also when ComfyUI shrinks a node on loading, and on
 * classic nodes, where a text box has neither, a caption and a tooltip. Vue nodes draw their own.
 */
import { app } from "../../scripts/app.js";
import { isMeasuring, isOurs, optionsOf } from "./nodes.js";

const HEIGHT = 70;
const MEASURED_HEIGHT = 75;
const LOW = { names: 45, attacks: 45 }; // boxes of few lines
const CAPTION = { x: 16, y: 8, font: "11px sans-serif" };

function promptBoxes(node) {
  return (node.widgets ?? []).filter((widget) => widget.type === "customtext");
}

function drawCaptions(node, context) {
  context.save();
  context.font = CAPTION.font;
  context.fillStyle = LiteGraph.WIDGET_SECONDARY_TEXT_COLOR;
  for (const box of promptBoxes(node)) context.fillText(box.label ?? box.name, CAPTION.x, box.y + CAPTION.y);
  context.restore();
}

app.registerExtension({
  name: "Unlearning.Prompts",

  nodeCreated(node) {
    if (!isOurs(node)) return;
    for (const box of promptBoxes(node)) {
      box.options.getMinHeight = () => (isMeasuring(node) ? (LOW[box.name] ?? MEASURED_HEIGHT) : HEIGHT);
      box.element.title = optionsOf(node, box.name).tooltip; // ComfyUI gives it to the widget later
    }
    const onDrawForeground = node.onDrawForeground;
    node.onDrawForeground = function (context, canvas, ...rest) {
      onDrawForeground?.call(this, context, canvas, ...rest);
      if (!this.flags.collapsed && !canvas.low_quality) drawCaptions(this, context);
    };
  },
});
