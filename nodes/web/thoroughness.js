/**
 * Unlearn Concept asks for what has to be decided: its choice of a preset stands among the prompts, and widgets that the
 * preset decides, or that the method does not use, are hidden. Hidden widgets keep their values, and are sent.
 */
import { app } from "../../scripts/app.js";
import { isOurs, optionsOf } from "./nodes.js";

const CHOICE = "thoroughness";
const SHOWN_BEHIND = "overwrite_prompt";
const FILED_BEHIND = "wordings"; // files have values by their place, and older ones end there
const METHOD = "method";
const DECIDING = [CHOICE, METHOD, "wordings"];

function widgetOf(node, name) {
  return node.widgets.find((widget) => widget.name === name);
}

function indexOf(node, name) {
  return node.widgets.findIndex((widget) => widget.name === name);
}

function moveChoice(node, behind) {
  const widgets = [...node.widgets];
  const [choice] = widgets.splice(indexOf(node, CHOICE), 1);
  widgets.splice(widgets.findIndex((widget) => widget.name === behind) + 1, 0, choice);
  node.widgets = widgets;
}

/** Shows the choice among the prompts, and reads and writes files as if it were where the schema has it. */
function showAmongPrompts(node) {
  moveChoice(node, SHOWN_BEHIND);
  const { configure, onSerialize } = node;
  node.configure = function (data) {
    moveChoice(this, FILED_BEHIND);
    configure.call(this, data);
    moveChoice(this, SHOWN_BEHIND);
    hideUnneeded(this);
    // With all its widgets the node may have been higher for a moment.
    this.setSize([data.size[0], Math.max(data.size[1], this.computeSize()[1])]);
  };
  node.onSerialize = function (data) {
    onSerialize?.call(this, data);
    const [choice] = data.widgets_values.splice(indexOf(this, CHOICE), 1);
    data.widgets_values.splice(indexOf(this, FILED_BEHIND), 0, choice); // one less, without the choice before it
  };
}

/** The inputs that change nothing: by the preset, or without one by the method. */
function unneeded(node) {
  const { hides } = optionsOf(node, CHOICE);
  const [choice, method, wordings] = DECIDING.map((name) => widgetOf(node, name).value);
  return hides.preset[choice] ?? (wordings ? hides.method_with_wordings : hides.method)[method];
}

/** The widgets of inputs, those of a choice's options and of what becomes of a seed among them. */
function widgetsOf(node, names) {
  const own = node.widgets.filter((widget) => names.some((name) => `${widget.name}.`.startsWith(`${name}.`)));
  return new Set(own.flatMap((widget) => [widget, ...(widget.linkedWidgets ?? [])]));
}

function optionWidgets(node) {
  return node.widgets.filter((widget) => widget.name.startsWith(`${METHOD}.`));
}

/** Notes what a method's options are when another method takes their place, by method and widget. */
function keepOptions(node) {
  const kept = (node.keptOptions[widgetOf(node, METHOD).value] ??= {});
  for (const widget of optionWidgets(node)) {
    if (widget.isKept) continue;
    widget.isKept = true;
    const { onRemove } = widget;
    widget.onRemove = function (...given) {
      kept[widget.name] = widget.value;
      onRemove?.apply(this, given);
    };
  }
}

function restoreOptions(node) {
  const kept = node.keptOptions[widgetOf(node, METHOD).value] ?? {};
  for (const widget of optionWidgets(node)) if (widget.name in kept) widget.value = kept[widget.name];
}

function hideUnneeded(node) {
  keepOptions(node);
  const { hides } = optionsOf(node, CHOICE);
  const hidden = widgetsOf(node, unneeded(node));
  for (const widget of widgetsOf(node, Object.values(hides).flatMap(Object.values).flat())) {
    widget.hidden = hidden.has(widget); // for classic nodes
    widget.options.hidden = hidden.has(widget); // for Vue nodes
  }
  node.widgets = [...node.widgets]; // Vue nodes look at the options again
}

/** Hides and shows, and makes the node as high as what it shows. */
function refit(node) {
  hideUnneeded(node);
  node.setSize([node.size[0], node.computeSize()[1]]);
  app.canvas?.setDirty(true, true);
}

/** A node that is placed anew begins with a preset. One that is loaded gets values in the same task: it keeps them. */
function followDecisions(node) {
  let isNew = true;
  node.keptOptions = {};
  for (const widget of DECIDING.map((name) => widgetOf(node, name))) {
    const { callback } = widget;
    widget.callback = function (...given) {
      callback?.apply(this, given);
      isNew = false;
      if (this.name === METHOD) restoreOptions(node);
      refit(node);
    };
  }
  const { onConfigure } = node;
  node.onConfigure = function (data) {
    onConfigure?.call(this, data);
    isNew = false;
  };
  queueMicrotask(() => {
    keepOptions(node);
    if (!isNew) return;
    widgetOf(node, CHOICE).value = optionsOf(node, CHOICE).start;
    refit(node);
  });
}

app.registerExtension({
  name: "Unlearning.Thoroughness",

  nodeCreated(node) {
    if (!isOurs(node) || !node.widgets?.some((widget) => widget.name === CHOICE)) return;
    showAmongPrompts(node);
    followDecisions(node);
  },
});
