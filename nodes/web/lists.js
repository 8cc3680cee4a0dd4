/** After a patch is saved, the loaders' lists have it: ComfyUI reads folders when its page opens, or on R. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { findNode, isOurs } from "./nodes.js";

app.registerExtension({
  name: "Unlearning.Lists",

  setup() {
    api.addEventListener("executed", ({ detail: { node: id, output } }) => {
      const node = findNode(id);
      if (output?.patch && node && isOurs(node)) app.reloadNodeDefs();
    });
  },
});
