"""How many of the base's trajectories are enough: `python -m benchmarks.bank [--json FILE]`.

On the shipped model's object task: forgetting and its cost against the network calls that make the bank, for a method
without and one with retain latents. Rows are means over training seeds, with the lowest and the highest; each
measurement is a process of its own. It takes about 20 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.esd_reference import DRAWN, SIDE, unlearning_accuracy
from benchmarks.processes import Counter, in_process, machine, write_figures
from benchmarks.tasks import object_task
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.methods import METHODS
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import prompt_seeds_of
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

BANKS = ((2, 5), (8, 10), (8, 20), (16, 20))  # runs, and steps of each
SEEDS = (0, 1, 2)
TRAININGS: dict[str, dict[str, Any]] = {  # settings that forget, of docs/integrity.md and esd_reference
    "esd": {"steps": 200, "learning_rate": 5e-4, "batch_size": 6},
    "ovw": {"steps": 50, "learning_rate": 1e-3},
}
RETAIN_SEED = 1000


def measure(method: str, runs: int, run_steps: int) -> dict[str, Any]:
    """UA and I for each training seed, and the network's samples in one training."""
    torch.set_num_threads(1)
    task, kind = object_task(), METHODS[method]
    model = load(MODEL)
    counter = Counter(model.denoiser)
    held_out = prompt_seeds_of(task.retain, [RETAIN_SEED])
    before, lpips = draw(model, held_out, DRAWN), Lpips("alex")
    found: dict[str, Any] = {"UA": [], "I": []}
    for seed in SEEDS:
        settings = Settings(
            seed=seed,
            width=SIDE,
            height=SIDE,
            runs=runs,
            run_steps=run_steps,
            weights=kind.weights,
            **TRAININGS[method],
        )
        counter.samples = 0
        patch = unlearn(model, kind(), task.prompts, settings)
        found["samples"] = counter.samples
        with model.patched(patch):
            found["UA"].append(unlearning_accuracy(model, task))
            found["I"].append(float(lpips.distance(before, draw(model, held_out, DRAWN)).mean()))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description="How large a bank is enough.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--measure", nargs=3, metavar=("METHOD", "RUNS", "STEPS"), help="one row, in this process")
    args = parser.parse_args()
    if args.measure:
        method, runs, run_steps = args.measure
        print(json.dumps(measure(method, int(runs), int(run_steps))))
        return
    rows = []
    print("method runs steps samples   UA (lowest to highest)    I (lowest to highest)")
    for method, (runs, run_steps) in tqdm([*product(TRAININGS, BANKS)], desc="measuring", unit="bank", disable=None):
        row = in_process("bank", "--measure", method, str(runs), str(run_steps))
        rows.append({"method": method, "runs": runs, "run_steps": run_steps, **row})
        tqdm.write(f"{method:6} {runs:4} {run_steps:5} {row['samples']:7} {spread(row['UA'])}   {spread(row['I'])}")
        write_figures({"rows": rows, "seeds": SEEDS, "trainings": TRAININGS, "machine": machine()}, args.json)


def spread(values: Sequence[float]) -> str:
    """Mean, lowest and highest."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
