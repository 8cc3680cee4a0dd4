"""What live previews cost: `python -m benchmarks.preview [--json FILE]`.

Unlearn Concept as the quickstart has it, in a ComfyUI server, with previews and without in turns, each run with another
seed so that nothing is kept from an earlier one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import ROOT, in_turns, machine, medians, write_figures

sys.path.append(str(ROOT / "scripts"))

GRAPH = ROOT / "workflows" / "api" / "quickstart.json"
UNLEARN, NEEDED = "2", ("1", "2")  # the node, and what it needs
OUTPUT = {"class_type": "SaveUnlearningPatch", "inputs": {"patch": [UNLEARN, 1], "filename_prefix": "preview"}}
METHODS = ("none", "latent2rgb")  # ComfyUI's names of ways to preview
ENDS = ("execution_success", "execution_error", "execution_interrupted")
ROUNDS = 5


def graph(seed: int) -> dict[str, Any]:
    """The quickstart's training in API format."""
    nodes = json.loads(GRAPH.read_text(encoding="utf-8"))
    nodes[UNLEARN]["inputs"]["seed"] = seed
    return {**{name: nodes[name] for name in NEEDED}, "save": OUTPUT}


def run(server: Any, method: str, seed: int) -> dict[str, float]:
    """Seconds of one run, those that the server's processors computed, and how often it sent pictures."""
    from messages import MessageReader

    process, previews = psutil.Process(server.pid), 0
    times: dict[str, float] = {}  # of what happened
    with MessageReader(server.port, server.client_id) as messages:
        before = process.cpu_times()
        prompt = server.post(graph(seed), preview_method=method)
        while not times.keys() & set(ENDS):
            message = messages.read(patience=0.5)
            if not message or message["data"].get("prompt_id") != prompt:
                continue
            previews += "pairs" in message["data"]
            times[message["type"]] = message["data"].get("timestamp", 0) / 1000
        after = process.cpu_times()
    return {
        "seconds": times["execution_success"] - times["execution_start"],
        "processor seconds": after.user + after.system - before.user - before.system,
        "previews": previews,
    }


def measure() -> dict[str, dict[str, float]]:
    """Medians over the rounds, by method."""
    from comfyui import Server, find_comfyui

    python = Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder, Server(find_comfyui(python), python, Path(folder)) as server:
        run(server, METHODS[0], seed=0)  # what is loaded once
        seeds = iter(range(1, 1 + ROUNDS * len(METHODS)))
        return medians(in_turns(METHODS, ROUNDS, lambda method, number: run(server, method, next(seeds))))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preview", description="What live previews cost.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    args = parser.parse_args()
    without, with_previews = (found := measure()).values()
    ratios = {kind: with_previews[kind] / without[kind] for kind in ("seconds", "processor seconds")}
    for kind, ratio in ratios.items():
        print(f"{kind}: {without[kind]:.1f} without, {with_previews[kind]:.1f} with previews, ratio {ratio:.3f}")
    print(f"{with_previews['previews']:.0f} previews")
    write_figures({"machine": machine(), "rounds": ROUNDS, "medians": found, "ratios": ratios}, args.json)


if __name__ == "__main__":
    main()
