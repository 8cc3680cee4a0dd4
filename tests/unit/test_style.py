"""The code is formatted, linted and typed, and the pack is one that ComfyUI's registry accepts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import comfyui
import pytest
from downloads import ROOT


def run(*command: str | Path, folder: Path = ROOT, **environment: str) -> str:
    """What `python -m command` prints; the test fails when it exits non-zero."""
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(arguments: list[str]) -> None:
    run("ruff", *arguments, ".")


def test_mypy(tmp_path: Path) -> None:
    # `nodes` reaches `unlearning_core` through the pack, so mypy needs the pack under a name that is an identifier.
    pack = tmp_path / "pack"
    comfyui.link_pack(pack)
    folders = [pack / name for name in ("__init__.py", "nodes", "unlearning_core", "scripts")]
    search = os.pathsep.join(str(folder) for folder in (tmp_path, pack / "scripts"))
    options: list[str | Path] = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
    run("mypy", *options, *folders, folder=tmp_path, MYPYPATH=search)
    run("mypy", *options, "benchmarks", "recipes", "tests", MYPYPATH=os.pathsep.join(("scripts", "tests/support")))


def test_registry_accepts_pack(tmp_path: Path) -> None:
    output = run("comfy_cli", "--skip-prompt", "node", "validate", HOME=str(tmp_path), DO_NOT_TRACK="1")
    assert "passed" in output
