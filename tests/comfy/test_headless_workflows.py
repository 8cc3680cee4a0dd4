"""The workflows that need no download, as a headless ComfyUI runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from comfyui import Server
from graphs import saved_patch, shortened, training
from workflow_files import TINY_WORKFLOWS, Workflow

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]


OWN = [workflow for workflow in TINY_WORKFLOWS if not workflow.twin]


@pytest.mark.parametrize("workflow", OWN, ids=lambda workflow: workflow.name)
def test_workflow_without_download_runs(server: Server, run_prompt: RunPrompt, workflow: Workflow) -> None:
    if workflow.name == "patch":
        folder = server.base_directory / "output" / "loras"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(saved_patch(server, run_prompt(training("of 01"))), folder / "quickstart_00001_.safetensors")
    outputs = run_prompt(shortened(json.loads(workflow.api_file.read_text(encoding="utf-8"))))["outputs"]
    assert any(output.get("images") or output.get("text") for output in outputs.values())
