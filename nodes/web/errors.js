/** What was wrong with a node's input, in its own words: ComfyUI's message has them behind a click. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isOurs } from "./nodes.js";

app.registerExtension({
  name: "Unlearning.Errors",

  setup() {
    api.addEventListener("execution_error", ({ detail: { node_type, exception_type, exception_message } }) => {
      const kind = LiteGraph.registered_node_types[node_type];
      if (exception_type !== "ValueError" || !isOurs({ constructor: kind })) return;
      app.extensionManager.toast.add({ severity: "error", summary: kind.title, detail: exception_message });
    });
  },
});
