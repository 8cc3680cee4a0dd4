"""What an integrity loss means is said with the same measured numbers everywhere: those of docs/integrity.md."""

from __future__ import annotations

import ast
import re

import pytest
from downloads import ROOT
from workflow_files import FAMILY_WORKFLOWS, TINY_WORKFLOWS, Workflow

from unlearning_core.reports.tables import OTHER_PROMPT, OTHER_SEED

MEASURED = re.compile(r"another seed of the same prompt gives LPIPS (0\.\d+), another prompt\s(0\.\d+)\.")


def words(text: str) -> str:
    return " ".join(text.split())


def measured() -> tuple[str, str]:
    """LPIPS of another seed of the same prompt, and of another prompt."""
    found = MEASURED.search((ROOT / "docs" / "integrity.md").read_text(encoding="utf-8"))
    assert found
    return found[1], found[2]


def sentence() -> str:
    seed, prompt = measured()
    return f"another seed of the same prompt gives {seed}, another prompt {prompt}."


def test_readme_has_the_measured_scale() -> None:
    seed, prompt = measured()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| {seed} | another seed of the same prompt |\n| {prompt} | another prompt |\n" in readme


def test_help_page_and_node_have_the_measured_scale() -> None:
    page = (ROOT / "nodes" / "web" / "docs" / "RetentionMetric.md").read_text(encoding="utf-8")
    assert sentence() in words(page)
    tree = ast.parse((ROOT / "nodes" / "retention.py").read_text(encoding="utf-8"))
    assert any(sentence() in str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant))


def test_sentences_have_the_measured_scale() -> None:
    assert (f"{OTHER_SEED}", f"{OTHER_PROMPT}") == measured()


MEASURING = [
    workflow
    for workflow in (*TINY_WORKFLOWS, *FAMILY_WORKFLOWS)
    if any(node.type == "RetentionMetric" for node in workflow.graph.nodes)
]


@pytest.mark.parametrize("workflow", MEASURING, ids=lambda workflow: workflow.name)
def test_notes_on_the_canvas_have_the_measured_scale(workflow: Workflow) -> None:
    assert sentence().lower() in words(workflow.graph.note.text).lower()
