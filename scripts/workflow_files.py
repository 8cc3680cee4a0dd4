"""Every text file that is written for the workflows: both formats of each, and README.md's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from blocks import Block
from downloads import ROOT
from family_graphs import graph, title
from family_workflows import FAMILIES
from tiny_workflows import TINY
from workflow_graph import Graph, api_format, ui_format

WORKFLOWS = ROOT / "workflows"
README = ROOT / "README.md"


class Workflow(NamedTuple):
    """A workflow's files are .json and .jpg in workflows/ under its title, which ComfyUI shows, and api/`name`.json.

    `label` heads the thumbnail; `told` is README.md's word for what it shows or loads, and `cost` for how long it takes
    or how large its model is. A `twin` is the workflow whose API file is this one's too.
    """

    name: str
    title: str
    label: str
    told: str
    cost: str
    graph: Graph
    twin: str = ""

    @property
    def file(self) -> Path:
        """As ComfyUI's front end opens it."""
        return WORKFLOWS / f"{self.title}.json"

    @property
    def api_file(self) -> Path:
        """As ComfyUI's server takes it."""
        return WORKFLOWS / "api" / f"{self.twin or self.name}.json"

    @property
    def thumbnail(self) -> Path:
        """What the template browser shows."""
        return WORKFLOWS / f"{self.title}.jpg"


def how_long(graph: Graph) -> str:
    """What a workflow's note says first of its time."""
    sentence = graph.note.text.partition("## How long\n\n")[2].partition("\n")[0].partition(". ")[0]
    return sentence.rstrip(".").removesuffix(" on two CPU cores")


TINY_WORKFLOWS = tuple(
    Workflow(each.name, each.title, each.label, each.told, how_long(each.graph), each.graph, each.twin) for each in TINY
)
FAMILY_WORKFLOWS = tuple(
    Workflow(
        family.name,
        title(family),
        family.label,
        family.model,
        family.memory.partition(". ")[0].removesuffix("."),
        graph(family),
    )
    for family in FAMILIES
)
WRITER = "scripts/workflows.py"
TABLES = (
    (Block("workflows", WRITER), ("workflow", "before, after", "shows", "time", "for the API"), TINY_WORKFLOWS),
    (Block("families", WRITER), ("workflow", "loads", "diffusion model", "for the API"), FAMILY_WORKFLOWS),
)


def generated_texts() -> dict[Path, str]:
    """Every text file, with its content. README.md keeps what is outside the blocks.

    Raises ValueError when README.md has no block for them.
    """
    texts = {README: with_tables(README.read_text(encoding="utf-8"))}
    for workflow in (*TINY_WORKFLOWS, *FAMILY_WORKFLOWS):
        texts[workflow.file] = json.dumps(ui_format(workflow.graph), indent=2) + "\n"
        texts[workflow.api_file] = json.dumps(api_format(workflow.graph), indent=2) + "\n"
    return texts


def with_tables(readme: str) -> str:
    """README.md's text with the tables between their comments. Raises ValueError without these."""
    for block, columns, workflows in TABLES:
        readme = block.fill(readme, table(columns, workflows), README.name)
    return readme


def table(columns: Sequence[str], workflows: Sequence[Workflow]) -> list[str]:
    """The lines of a table of workflows."""
    rows = (columns, ["---"] * len(columns), *([_cells(each)[column] for column in columns] for each in workflows))
    return [f"| {' | '.join(row)} |" for row in rows]


def _cells(workflow: Workflow) -> dict[str, str]:
    """What stands in a table's columns."""
    file, picture, api = (
        quote(path.relative_to(ROOT).as_posix()) for path in (workflow.file, workflow.thumbnail, workflow.api_file)
    )
    return {
        "workflow": f"[{workflow.title}]({file})",
        "before, after": f'<img src="{picture}" width="180" alt="{workflow.label}">',
        "shows": workflow.told,
        "loads": workflow.told,
        "time": workflow.cost,
        "diffusion model": workflow.cost,
        "for the API": f"[{workflow.api_file.name}]({api})",
    }
