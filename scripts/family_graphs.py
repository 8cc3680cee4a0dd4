"""The workflows of the families in family_workflows.py."""

from __future__ import annotations

from family_workflows import FAMILIES, FOLDERS, Family
from standard_graph import Standard, forget_and_measure
from workflow_graph import Graph

FIRST = 11  # the number of the first family's workflow; those before it need no download


def title(family: Family) -> str:
    """The workflow's name in ComfyUI."""
    return f"{FIRST + FAMILIES.index(family)} Forget with {family.label}"


def graph(family: Family) -> Graph:
    """The family's workflow: load, unlearn, measure, save."""
    identity = family.identity or f"unlearning/{family.name}"
    return forget_and_measure(
        Standard(
            identity,
            family.loading,
            family.prompts,
            family.training,
            family.measuring,
            prefix="no-cat",
            note=_note(family),
        )
    )


def _note(family: Family) -> str:
    chosen = "checkpoint" if len(model_files(family)) == 1 else "files"
    paragraphs = (
        f"# Forget with {family.label}",
        f"**1.** Choose your {chosen}. **2.** Press Run: cats become dogs. **3.** Look.",
        "## Look at",
        "* **Before, after, difference**: cats turn into dogs, the other pictures stay.\n"
        "* **I**, the integrity loss: 0 is the same picture, lower is better. On the shipped model "
        "another seed of the same prompt gives 0.167, another prompt 0.568.\n"
        "* The patch is in output/loras.",
        "## How long",
        "Drawing takes most of it: " + _pictures(family),
        "## Change first",
        "**forget_prompts** and **overwrite_prompt**; then **steps**, up when the concept still shows.",
        *([family.advice] if family.advice else []),
        f"**Memory.** Training holds a second copy of the diffusion model: {family.memory} Unlearn Concept looks "
        "first whether it fits.",
    )
    return "\n\n".join(paragraphs) + "\n"


def _pictures(family: Family) -> str:
    measuring, prompts, training = family.measuring, family.prompts, family.training
    measured = len(prompts.measured_retain) * measuring.seeds + len(prompts.forget) * measuring.forget_seeds
    return (
        f"{2 * measured} pictures of {measuring.steps} steps at {measuring.size} x {measuring.size}, and "
        f"{2 * training.runs} of {training.run_steps} steps at {training.size} x {training.size} to train on."
    )


def model_files(family: Family) -> list[str]:
    """The files that the workflow loads, as paths below ComfyUI's models folder."""
    widgets = [widget for node in family.loading.nodes for widget in node.widgets]
    return [f"{FOLDERS[widget.name]}/{widget.value}" for widget in widgets if widget.name in FOLDERS]
