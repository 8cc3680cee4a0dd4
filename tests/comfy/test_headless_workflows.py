"""The workflows that need no download, as a headless ComfyUI runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from comfyui import Server
from graphs import saved_patch, training
from workflow_files import TINY_WORKFLOWS, Workflow

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize("workflow", TINY_WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflow_without_download_runs(server: Server, run_prompt: RunPrompt, workflow: Workflow) -> None:
    if workflow.name == "patch":
        folder = server.base_directory / "output" / "loras"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(saved_patch(server, run_prompt(training("of 01"))), folder / "quickstart_00001_.safetensors")
    outputs = run_prompt(shortened(json.loads(workflow.api_file.read_text(encoding="utf-8"))))["outputs"]
    assert any(output.get("images") or output.get("text") for output in outputs.values())


def shortened(graph: dict[str, Any]) -> dict[str, Any]:
    """A workflow with as little to train and to draw as there can be."""
    least = {"steps": 2, "runs": 1, "run_steps": 2, "seeds": 1, "forget_seeds": 1, "batch_size": 2}
    boxes = ("forget_prompts", "overwrite_prompt", "retain_prompts")
    for entry in graph.values():
        inputs = entry["inputs"]
        inputs |= {name: value for name, value in least.items() if name in inputs}
        inputs |= {name: "\n".join(inputs[name].splitlines()[:2]) for name in boxes if name in inputs}
    return graph
