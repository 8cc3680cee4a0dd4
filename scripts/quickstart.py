"""Unlearn a concept with this pack in a headless ComfyUI, and show what that cost: `python scripts/quickstart.py`.

Everything is installed into .venv and .cache of this repository; a later run reuses both.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from comfyui import Progress, PromptError, Server, ServerError
from downloads import CACHE, ROOT
from environment import PYTHON, prepare

T = TypeVar("T")

WORKFLOW = ROOT / "workflows" / "api" / "quickstart.json"
OUTPUT = ROOT / "output" / "quickstart"
FIGURES = ("integrity", "forget_distance", "unlearning_accuracy", "noise_floor")


class ProgressLine:
    """Shows the running node and the seconds since the start: one line rewritten, or in a log one line a node."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self._names = {key: node.get("_meta", {}).get("title", node["class_type"]) for key, node in prompt.items()}
        self._start = time.monotonic()
        self._node = ""

    def __call__(self, progress: Progress) -> None:
        elapsed = time.monotonic() - self._start
        line = f"{elapsed:5.0f} s  {self._names[progress.node]}"
        if sys.stdout.isatty():
            steps = f" {progress.value:.0f}/{progress.maximum:.0f}" if progress.maximum > 1 else ""
            print(f"\r{line + steps:<78}", end="", flush=True)
        elif progress.node != self._node:
            print(line, flush=True)
        self._node = progress.node

    def close(self) -> None:
        """Ends the line."""
        if sys.stdout.isatty():
            print()


def run_workflow(server: Server, workflow: Path) -> dict[str, Any]:
    """Run an API-format workflow with a progress line and return its history entry."""
    prompt = json.loads(workflow.read_text(encoding="utf-8"))
    progress = ProgressLine(prompt)
    try:
        return server.run(prompt, progress)
    finally:
        progress.close()


def save_results(server: Server, entry: dict[str, Any], output: Path) -> dict[str, Any]:
    """Save the picture sheet, the table and the patch of a history entry in `output`; return the figures.

    `seconds` is the time that ComfyUI took for the workflow: unlearning and measuring.
    """
    metric = _output_with("retention", entry)
    [patch] = _output_with("patch", entry)["patch"]
    [sheet] = metric["images"]
    [table] = metric["text"]
    output.mkdir(parents=True, exist_ok=True)
    (output / "pictures.png").write_bytes(server.download(sheet))
    (output / "table.md").write_text(f"{table}\n", encoding="utf-8")
    (output / "patch.safetensors").write_bytes(server.download(patch))
    [retention] = metric["retention"]
    figures = {name: retention[name] for name in FIGURES}
    return {**figures, "seconds": seconds_of(entry), "patch": str(output / "patch.safetensors")}


def _output_with(key: str, entry: dict[str, Any]) -> dict[str, Any]:
    """What the node put out whose output has `key`."""
    return next(output for output in entry["outputs"].values() if key in output)


def seconds_of(entry: dict[str, Any]) -> float:
    """The time from start to success of a history entry's prompt, by ComfyUI's own clock."""
    times = {kind: data["timestamp"] for kind, data in entry["status"]["messages"]}
    return (times["execution_success"] - times["execution_start"]) / 1000


def in_comfyui(work: Callable[[Server], T]) -> T:
    """What `work` makes of a ComfyUI with this pack; ends the process with one line when that fails, or on Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Ends like Ctrl-C does: through the code that stops ComfyUI.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended."))
    try:
        comfyui = prepare()
        print(f"Starting ComfyUI from {comfyui}", flush=True)
        with Server(comfyui, PYTHON, CACHE / "server") as server:
            return work(server)
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    except (ValueError, ServerError, PromptError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE, as JSON")
    arguments = parser.parse_args()
    if arguments.json and not arguments.json.parent.is_dir():
        parser.error(f"--json {arguments.json}: there is no folder {arguments.json.parent}")
    figures = in_comfyui(lambda server: save_results(server, run_workflow(server, WORKFLOW), OUTPUT))
    print((OUTPUT / "table.md").read_text(encoding="utf-8"))
    print(f"{figures['seconds']:.0f} s. The pictures, this table and the patch are in {OUTPUT}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
