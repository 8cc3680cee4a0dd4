/** Which workflow a run belongs to: messages name a node by its id alone, and another workflow may have one like it. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

export const ENDS = ["execution_interrupted", "execution_error", "execution_success"];
const PREFIX = "Unlearning.Job ";
let current; // the run that works now

const queuePrompt = api.queuePrompt;
api.queuePrompt = async function (...given) {
  const answer = await queuePrompt.apply(this, given);
  const id = given[1]?.workflow?.id; // other packs queue too, some without a workflow
  if (id) sessionStorage.setItem(PREFIX + answer.prompt_id, id);
  return answer;
};
api.addEventListener("execution_start", ({ detail }) => (current = detail.prompt_id));
for (const event of ENDS) api.addEventListener(event, () => (current = undefined));

/** Whether a run, the present one if none is named, is one of the workflow that is shown, as far as this page knows. */
export function isOfShown(promptId = current) {
  const workflow = sessionStorage.getItem(PREFIX + promptId);
  return workflow === null || workflow === app.graph.id;
}

/** Whether the workflow that is shown runs now. */
export function isRunning() {
  return current !== undefined && isOfShown();
}
