"""How long the quickstart takes, and what live previews cost: `python -m benchmarks.quickstart [--json FILE]`.

The whole workflow and its Unlearn Concept alone, in turns, in a ComfyUI server of one thread. Each run has another
seed, and the metric draws all pictures anew, so that nothing is kept from an earlier one. Previews are timed within
trainings, in a process of their own: they take less than one run differs from the next.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from benchmarks.pack_in_process import import_pack
from benchmarks.processes import ROOT, in_process, in_turns, machine, medians, write_figures

sys.path.append(str(ROOT / "scripts"))

GRAPH = ROOT / "workflows" / "api" / "quickstart.json"
UNLEARN, MEASURE, NEEDED = "2", "3", ("1", "2")  # its nodes, and what training alone needs
OUTPUT = {"class_type": "SaveUnlearningPatch", "inputs": {"patch": [UNLEARN, 1], "filename_prefix": "preview"}}
WHOLE, ALONE = "whole workflow", "unlearning"
BOXES = ("forget_prompts", "overwrite_prompt", "retain_prompts")
ROUNDS = 5


def graph(case: str, seed: int) -> dict[str, Any]:
    """The quickstart in API format, or its training alone."""
    nodes = json.loads(GRAPH.read_text(encoding="utf-8"))
    nodes[UNLEARN]["inputs"]["seed"] = seed
    nodes[MEASURE]["inputs"]["fresh_pictures"] = True
    return nodes if case == WHOLE else {**{name: nodes[name] for name in NEEDED}, "save": OUTPUT}


def run(server: Any, case: str, seed: int) -> dict[str, float]:
    """Seconds of one run without previews, and those that the server's processors computed."""
    from quickstart import seconds_of

    process = psutil.Process(server.pid)
    before = process.cpu_times()
    entry = server.wait(server.post(graph(case, seed), preview_method="none"))
    after = process.cpu_times()
    computed = after.user + after.system - before.user - before.system
    return {"seconds": seconds_of(entry), "processor seconds": computed}


def measure() -> dict[str, dict[str, float]]:
    """Medians over the rounds, by case."""
    from comfyui import Server, find_comfyui

    os.environ["OMP_NUM_THREADS"] = "1"  # of the server too; a thread that waits for others counts as computing
    python = Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder, Server(find_comfyui(python), python, Path(folder)) as server:
        run(server, WHOLE, seed=0)  # what is loaded once
        seeds = count(1)
        return medians(in_turns((WHOLE, ALONE), ROUNDS, lambda case, _: run(server, case, next(seeds))))


def measure_previews() -> dict[str, float]:
    """Seconds of one unlearning with previews, those that previews took, and how many there were."""
    from comfyui import find_comfyui

    pack = import_pack(find_comfyui(Path(sys.executable)))
    core = {name: pack(f"unlearning_core.{name}") for name in ("presets", "prompts", "settings", "tiny", "unlearn")}
    tiny, preview = pack("nodes.host.tiny"), pack("nodes.host.preview")
    preview.args.preview_method = preview.LatentPreviewMethod.Latent2RGB
    inputs = graph(ALONE, seed=0)[UNLEARN]["inputs"]
    prompts = core["prompts"].Prompts.parse(*(inputs[name] for name in BOXES))
    preset = core["presets"].PRESETS[inputs["thoroughness"]]
    settings = core["settings"].Settings(
        **{**{name: inputs[name] for name in preset.free}, **preset.values(len(prompts.forget))}
    )
    model, clip = tiny.load_model(core["tiny"].MODEL), tiny.load_clip(core["tiny"].MODEL)
    opened = pack("nodes.host.unlearning").opened(model, clip, preset.objective)
    with torch.inference_mode(False), torch.enable_grad(), opened as host:
        taken: list[float] = []
        shown: list[int] = []
        begun = time.perf_counter()
        told = preview.previews(host, prompts, settings, lambda pairs: shown.append(len(pairs)))

        def timed(progress: Any) -> None:
            before = time.perf_counter()
            told(progress)
            taken.append(time.perf_counter() - before)

        core["unlearn"].unlearn(host, preset.objective, prompts, settings, timed)
        return {"seconds": time.perf_counter() - begun, "preview seconds": sum(taken), "previews": len(shown)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quickstart", description="The quickstart's time.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--measure-previews", action="store_true", help="one training, in this process")
    args = parser.parse_args()
    if args.measure_previews:
        print(json.dumps(measure_previews()))
        return
    found = measure()
    for case, figures in found.items():
        print(case, *(f"{value:.1f} {name}" for name, value in figures.items()), sep=", ")
    trained = [in_process("quickstart", "--measure-previews", OMP_NUM_THREADS="1") for _ in range(ROUNDS)]
    share = median(each["preview seconds"] / each["seconds"] for each in trained)
    print(f"previews: {median(each['previews'] for each in trained):.0f}, {share:.1%} of the time of unlearning")
    write_figures({"machine": machine(), "medians": found, "previews": share, "trainings": trained}, args.json)


if __name__ == "__main__":
    main()
