"""Measurements that need a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def in_process(benchmark: str, *arguments: str) -> Any:
    """What `python -m benchmarks.<benchmark> <arguments>` prints as JSON on its last line."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *arguments]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])
