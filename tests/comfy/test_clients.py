"""Other clients of ComfyUI's server: the example of docs/api.md, and comfy-cli."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comfyui import Server
from downloads import ROOT
from graphs import saved_patch, shortened, training
from workflow_files import TINY_WORKFLOWS, Workflow

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]
OWN = [workflow for workflow in TINY_WORKFLOWS if not workflow.twin]


def write_shortened(workflow: Path, folder: Path) -> Path:
    """The workflow with little to do, at its place below `folder`."""
    path = folder / workflow.relative_to(ROOT)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(shortened(json.loads(workflow.read_text(encoding="utf-8")))), encoding="utf-8")
    return path


def run(*command: str | Path, folder: Path) -> str:
    """What a command of Python prints; the test fails when it exits non-zero."""
    result = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_example_of_the_documentation_runs(server: Server, tmp_path: Path) -> None:
    write_shortened(TINY_WORKFLOWS[0].api_file, tmp_path)
    [code] = re.findall(r"```python\n(.+?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    figures = dict(line.split() for line in run("-c", code, f"127.0.0.1:{server.port}", folder=tmp_path).splitlines())
    assert 0 < float(figures["integrity"]) < 1
    assert 0 <= float(figures["unlearning_accuracy"]) <= 1
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("workflow", OWN, ids=lambda workflow: workflow.name)
def test_comfy_cli_runs_every_workflow_without_download(
    server: Server, run_prompt: RunPrompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workflow: Workflow
) -> None:
    if workflow.name == "patch":
        folder = server.base_directory / "output" / "loras"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(saved_patch(server, run_prompt(training("of 01"))), folder / "quickstart_00001_.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))  # where comfy-cli has its settings
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    place = ("--host", "127.0.0.1", "--port", str(server.port))
    file = write_shortened(workflow.api_file, tmp_path)
    command = ("-m", "comfy_cli", "--skip-prompt", "run", "--workflow", file, "--wait", "--timeout", "600")
    assert "/view?" in run(*command, *place, folder=tmp_path)
