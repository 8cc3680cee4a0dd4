"""The pictures before and after, as scripts/pictures.py has them drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pictures
import pytest
from comfyui import Server
from graphs import shortened
from PIL import ImageChops
from workflow_files import TINY_WORKFLOWS, Workflow

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize("workflow", TINY_WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_workflow_has_models_and_prompts_to_draw(workflow: Workflow) -> None:
    prompt = pictures.prompt_of(workflow)
    shown = pictures.trained(prompt, 2)
    graph = pictures.drawing(prompt, shown)
    assert len(set(shown.prompts)) == 4
    assert [entry for entry in graph.values() if entry["class_type"] == "UnlearnConcept"] == [
        prompt[node] for node in shown.nodes.values()
    ]
    linked = {value[0] for entry in graph.values() for value in entry["inputs"].values() if isinstance(value, list)}
    assert linked <= graph.keys()
    previews = {name for name, entry in graph.items() if entry["class_type"] == "PreviewImage"}
    assert previews == {f"{name}/{index}" for name in ("before", *shown.nodes) for index in range(4)}


def test_what_is_drawn_changes_with_the_model(server: Server, run_prompt: RunPrompt) -> None:
    prompt = shortened(pictures.prompt_of(TINY_WORKFLOWS[0]))
    shown = pictures.trained(prompt, 1)
    columns = pictures.columns(server, run_prompt(pictures.drawing(prompt, shown)), shown)
    assert [*columns] == ["before", "after"]
    (gone, kept), (instead, still) = columns.values()
    for one, other in ((gone, kept), (gone, instead), (kept, still)):
        assert one.size == other.size == (pictures.SIDE, pictures.SIDE)
        assert ImageChops.difference(one, other).getbbox()
    left, right = 4, pictures.SIDE - 4
    both = pictures.halved(gone, instead)
    assert both.getpixel((left, 9)) == gone.getpixel((left, 9))
    assert both.getpixel((right, 9)) == instead.getpixel((right, 9))
