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

    `label` heads the thumbnail; `told` is README.md's word for what it shows or loads. A `twin` is the workflow whose
    API file is this one's too.
    """

    name: str
    title: str
    label: str
    told: str
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


TINY_WORKFLOWS = tuple(Workflow(each.name, each.title, each.label, each.told, each.graph, each.twin) for each in TINY)
FAMILY_WORKFLOWS = tuple(
    Workflow(family.name, title(family), family.label, family.model, graph(family)) for family in FAMILIES
)
TABLES = (
    (Block("workflows", "scripts/workflows.py"), "shows", TINY_WORKFLOWS),
    (Block("families", "scripts/workflows.py"), "loads", FAMILY_WORKFLOWS),
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
    for block, column, workflows in TABLES:
        readme = block.fill(readme, table(column, workflows), README.name)
    return readme


def table(column: str, workflows: Sequence[Workflow]) -> list[str]:
    """The lines of a table of workflows."""
    return [f"| workflow | {column} | for the API |", "|---|---|---|", *map(_row, workflows)]


def _row(workflow: Workflow) -> str:
    file, api = (path.relative_to(ROOT).as_posix() for path in (workflow.file, workflow.api_file))
    return f"| [{workflow.title}]({quote(file)}) | {workflow.told} | [{api.partition('/')[2]}]({api}) |"
