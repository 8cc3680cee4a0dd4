"""How long the quickstart takes, and what live previews cost: `python -m benchmarks.quickstart [--json FILE]`.

In a ComfyUI server of one thread, in turns: the whole workflow, its Unlearn Concept without previews, and that with
them. Each run has another seed, and the metric draws all pictures anew, so that nothing is kept from an earlier one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.processes import ROOT, in_turns, machine, medians, write_figures

sys.path.append(str(ROOT / "scripts"))

GRAPH = ROOT / "workflows" / "api" / "quickstart.json"
UNLEARN, MEASURE, NEEDED = "2", "3", ("1", "2")  # its nodes, and what training alone needs
OUTPUT = {"class_type": "SaveUnlearningPatch", "inputs": {"patch": [UNLEARN, 1], "filename_prefix": "preview"}}
WHOLE, WITHOUT, WITH = "whole workflow", "unlearning", "unlearning with previews"
METHODS = {WHOLE: "none", WITHOUT: "none", WITH: "latent2rgb"}  # ComfyUI's names of ways to preview
ENDS = ("execution_success", "execution_error", "execution_interrupted")
ROUNDS = 5
KINDS = ("seconds", "processor seconds")


def graph(case: str, seed: int) -> dict[str, Any]:
    """The quickstart in API format, or its training alone."""
    nodes = json.loads(GRAPH.read_text(encoding="utf-8"))
    nodes[UNLEARN]["inputs"]["seed"] = seed
    nodes[MEASURE]["inputs"]["fresh_pictures"] = True
    return nodes if case == WHOLE else {**{name: nodes[name] for name in NEEDED}, "save": OUTPUT}


def run(server: Any, case: str, seed: int) -> dict[str, float]:
    """Seconds of one run, those that the server's processors computed, and how often it sent pictures."""
    from messages import MessageReader

    process, previews = psutil.Process(server.pid), 0
    times: dict[str, float] = {}  # of what happened
    with MessageReader(server.port, server.client_id) as messages:
        before = process.cpu_times()
        prompt = server.post(graph(case, seed), preview_method=METHODS[case])
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


def measure() -> list[dict[str, dict[str, float]]]:
    """The rounds, each by case."""
    from comfyui import Server, find_comfyui

    os.environ["OMP_NUM_THREADS"] = "1"  # of the server too; a thread that waits for others counts as computing
    python = Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder, Server(find_comfyui(python), python, Path(folder)) as server:
        run(server, WHOLE, seed=0)  # what is loaded once
        seeds = count(1)
        return in_turns([*METHODS], ROUNDS, lambda case, _: run(server, case, next(seeds)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quickstart", description="The quickstart's time.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    args = parser.parse_args()
    rounds = measure()
    found = medians(rounds)
    for case, figures in found.items():
        print(case, *(f"{value:.1f} {name}" for name, value in figures.items()), sep=", ")
    cost = {kind: median(each[WITH][kind] / each[WITHOUT][kind] for each in rounds) - 1 for kind in KINDS}
    print("previews cost", *(f"{share:.1%} of the {kind}" for kind, share in cost.items()), sep=", ")
    write_figures({"machine": machine(), "rounds": rounds, "medians": found, "previews": cost}, args.json)


if __name__ == "__main__":
    main()
