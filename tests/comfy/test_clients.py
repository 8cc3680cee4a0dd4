"""Other clients of ComfyUI's server: the example of docs/api.md, and comfy-cli."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui import Server
from downloads import ROOT
from graphs import shortened
from workflow_files import WORKFLOWS


def write_shortened(name: str, folder: Path) -> Path:
    """The workflow with little to do, at its place below `folder`."""
    path = folder / "workflows" / "api" / f"{name}.json"
    path.parent.mkdir(parents=True)
    graph = json.loads((WORKFLOWS / "api" / path.name).read_text(encoding="utf-8"))
    path.write_text(json.dumps(shortened(graph)), encoding="utf-8")
    return path


def run(*command: str | Path, folder: Path) -> str:
    """What a command of Python prints; the test fails when it exits non-zero."""
    result = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_example_of_the_documentation_runs(server: Server, tmp_path: Path) -> None:
    write_shortened("quickstart", tmp_path)
    [code] = re.findall(r"```python\n(.+?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    figures = dict(line.split() for line in run("-c", code, f"127.0.0.1:{server.port}", folder=tmp_path).splitlines())
    assert 0 < float(figures["integrity"]) < 1
    assert 0 <= float(figures["unlearning_accuracy"]) <= 1
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["quickstart", "compare"])
def test_comfy_cli_runs_a_workflow(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where comfy-cli has its settings
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    place = ("--host", "127.0.0.1", "--port", str(server.port))
    workflow = write_shortened(name, tmp_path)
    command = ("-m", "comfy_cli", "--skip-prompt", "run", "--workflow", workflow, "--wait", "--timeout", "600")
    run(*command, *place, folder=tmp_path)
