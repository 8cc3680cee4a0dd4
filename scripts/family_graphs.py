"""The files of the families in family_workflows.py: both formats of each workflow, and README.md's table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from blocks import Block
from downloads import ROOT
from family_workflows import FAMILIES, FOLDERS, Family
from workflow_graph import Graph, Node, Note, Output, Socket, Widget, api_format, ui_format

WORKFLOWS = ROOT / "workflows"
README = ROOT / "README.md"
BLOCK = Block("families", "scripts/workflows.py")


def graph(family: Family) -> Graph:
    """The family's workflow: load, unlearn, measure, save."""
    nodes = (*family.loading.nodes, _unlearn(family), _measure(family), _save())
    note = Note(5, (0, 0), (340, 400), _note(family), family.loading.note_order)
    return Graph(family.identity or f"unlearning/{family.name}", nodes, note)


def _unlearn(family: Family) -> Node:
    training, prompts = family.training, family.prompts
    inputs = (
        Socket("model", "MODEL", family.loading.model),
        Socket("clip", "CLIP", family.loading.clip),
        Widget("forget_prompts", "STRING", "\n".join(prompts.forget)),
        Widget("overwrite_prompt", "STRING", "\n".join(prompts.overwrite)),
        Widget("retain_prompts", "STRING", "\n".join(prompts.retain)),
        Widget("method", "COMFY_DYNAMICCOMBO_V3", "ovw"),
        Widget("method.help_weight", "FLOAT", 3),
        Widget("steps", "INT", 200),
        Widget("learning_rate", "FLOAT", training.learning_rate),
        Widget("weights", "COMBO", training.weights),
        Widget("rank", "INT", training.rank),
        Widget("alpha", "FLOAT", 0),
        Widget("seed", "INT", 0),
        Widget("width", "INT", training.size),
        Widget("height", "INT", training.size),
        Widget("batch_size", "INT", training.batch_size),
        Widget("runs", "INT", 16),
        Widget("run_steps", "INT", training.run_steps),
        Widget("run_cfg", "FLOAT", training.run_cfg),
    )
    outputs = {"MODEL": "MODEL", "PATCH": "UNLEARNING_PATCH"}
    return Node(2, "UnlearnConcept", "Unlearn Concept", (400, 0), (440, 860), inputs, outputs)


def _measure(family: Family) -> Node:
    measuring, prompts = family.measuring, family.prompts
    inputs = (
        Socket("base_model", "MODEL", family.loading.model),
        Socket("unlearned_model", "MODEL", Output(2, 0)),
        Socket("clip", "CLIP", family.loading.clip),
        Socket("vae", "VAE", family.loading.vae),
        Widget("retain_prompts", "STRING", "\n".join(prompts.measured_retain)),
        Widget("forget_prompts", "STRING", "\n".join(prompts.measured_forget)),
        Widget("seed", "INT", 1000),
        Widget("seeds", "INT", measuring.seeds),
        Widget("forget_seeds", "INT", measuring.forget_seeds),
        Widget("sampler_name", "COMBO", "euler"),
        Widget("scheduler", "COMBO", measuring.scheduler),
        Widget("steps", "INT", measuring.steps),
        Widget("cfg", "FLOAT", measuring.cfg),
        Widget("width", "INT", measuring.size),
        Widget("height", "INT", measuring.size),
        Socket("judge", "UNLEARNING_JUDGE", None, optional=True),
        Socket("patch", "UNLEARNING_PATCH", Output(2, 1), optional=True),
        Widget("backbone", "COMBO", "alex"),
        Widget("filename_prefix", "STRING", "unlearning/retention"),
        Widget("fresh_pictures", "BOOLEAN", False),
    )
    outputs = {
        "INTEGRITY": "FLOAT",
        "FORGET_DISTANCE": "FLOAT",
        "TABLE": "STRING",
        "JSON": "STRING",
        "SHEET": "IMAGE",
        "PATCH": "UNLEARNING_PATCH",
    }
    return Node(3, "RetentionMetric", "Retention Metric", (900, 0), (600, 1500), inputs, outputs)


def _save() -> Node:
    inputs = (Socket("patch", "UNLEARNING_PATCH", Output(3, 5)), Widget("filename_prefix", "STRING", "no-cat"))
    return Node(4, "SaveUnlearningPatch", "Save Unlearning Patch", (1560, 0), (320, 90), inputs, {})


def _note(family: Family) -> str:
    chosen = "checkpoint" if len(model_files(family)) == 1 else "files"
    paragraphs = (
        f"# {family.label}",
        f"Makes **{family.label} forget cats** and measures what that cost. Choose your {chosen} first, then press "
        "Run.",
        "**Look at the sheet** in Retention Metric: cats turn into dogs, the other pictures stay.",
        "**Look at I**, the integrity loss, in the table: 0 is the same picture, lower is better. For comparison, on "
        "the shipped model another seed of the same prompt gives 0.163, another prompt 0.569. The patch is saved in "
        "output/loras.",
        *([family.advice] if family.advice else []),
        f"**Memory.** Training holds a second copy of the diffusion model: {family.memory} Unlearn Concept measures "
        "what it needs before it starts, saves memory by gradient checkpointing when it must, and stops with a message "
        "when that is not enough.",
    )
    return "\n\n".join(paragraphs) + "\n"


def model_files(family: Family) -> list[str]:
    """The files that the workflow loads, as paths below ComfyUI's models folder."""
    widgets = [widget for node in family.loading.nodes for widget in node.widgets]
    return [f"{FOLDERS[widget.name]}/{widget.value}" for widget in widgets if widget.name in FOLDERS]


def generated_texts(families: Sequence[Family] = FAMILIES) -> dict[Path, str]:
    """Every text file that is written for the families, with its content. README.md keeps what is outside the block.

    Raises ValueError when README.md has no block for them.
    """
    texts = {README: with_families(README.read_text(encoding="utf-8"), families)}
    for family in families:
        workflow = graph(family)
        texts[WORKFLOWS / f"{family.name}.json"] = json.dumps(ui_format(workflow), indent=2) + "\n"
        texts[WORKFLOWS / "api" / f"{family.name}.json"] = json.dumps(api_format(workflow), indent=2) + "\n"
    return texts


def with_families(readme: str, families: Sequence[Family]) -> str:
    """README.md's text with a table of the families between its two comments. Raises ValueError without them."""
    rows = ["| workflow | model | for the API |", "|---|---|---|", *map(_row, families)]
    return BLOCK.fill(readme, rows, README.name)


def _row(family: Family) -> str:
    file = f"{family.name}.json"
    return f"| [{file}](workflows/{file}) | {family.model} | [api/{file}](workflows/api/{file}) |"
