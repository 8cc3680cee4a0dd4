"""Measurements that need a process of their own."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def in_process(benchmark: str, *arguments: str) -> Any:
    """What `python -m benchmarks.<benchmark> <arguments>` prints as JSON on its last line."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *arguments]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def medians(rounds: Sequence[Mapping[Any, Mapping[str, float]]]) -> dict[Any, dict[str, float]]:
    """Of each figure of each case over the rounds."""
    return {
        case: {key: statistics.median(one[case][key] for one in rounds) for key in figures}
        for case, figures in rounds[0].items()
    }


def machine() -> str:
    """What it was measured on."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


def write_figures(figures: Mapping[str, Any], path: Path | None) -> None:
    """As JSON, where a file is asked for."""
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
