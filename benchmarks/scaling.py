"""How time grows with what is asked for, and shrinks with processes: `python -m benchmarks.scaling [--json FILE]`.

Concepts in closed form, on the shapes of Stable Diffusion 1.5's text layers; the rest on the shipped model, on the CPU
with one thread a process. Each measurement is processes of its own; cases take turns. Starting and loading is not in
the seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.closed_form import TextLayers, prompts_of
from benchmarks.processes import Counter, in_processes, in_turns, machine, medians, timed, write_figures
from benchmarks.tasks import object_task
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import PipelineDrawing, Variant, draw
from unlearning_core.launched import launched
from unlearning_core.methods.ovw import Ovw
from unlearning_core.methods.uce import Uce
from unlearning_core.metrics.cache import PictureCache
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.evaluation import Candidate, evaluate
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import Plan, prompt_seeds_of
from unlearning_core.metrics.quality import Networks
from unlearning_core.metrics.retention import Comparison
from unlearning_core.metrics.studio import Studio
from unlearning_core.processes import current
from unlearning_core.progress import Reporter
from unlearning_core.sampling import Sampling
from unlearning_core.settings import Settings
from unlearning_core.solve import solve
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

CONCEPTS = (1, 10, 100, 1000, 2000)
PROMPTS, SIZES, STEPS = (8, 16, 32, 64), (128, 192, 256), (5, 10, 20)
PICTURES, SIDE, FEW = 16, 128, 5  # prompts, pixels and steps where another of them grows
PROCESSES = (1, 2)
SEEDS, FORGET_SEEDS, EVALUATED_STEPS = 8, 10, 5  # of the evaluation in 1 and 2 processes
TRAINED = Settings(steps=10, width=SIDE, height=SIDE, runs=32, run_steps=10, batch_size=8, micro_batch=4)
REPEATS = 5


def measure_concepts(count: int) -> dict[str, float]:
    """Seconds of one closed form, and how often it asks the network."""
    layers: Any = TextLayers()
    counter = Counter(next(iter(layers.layers.values())))
    cost, _ = timed(lambda: solve(layers, Uce(), prompts_of(count), list(layers.layers), (64, 64), Reporter()))
    return {**cost, "calls": counter.calls}


def measure_pictures(prompts: int, side: int, steps: int) -> dict[str, float]:
    """Seconds of drawing a picture of each prompt, and calls of the network."""
    model = load(MODEL)
    counter = Counter(model.denoiser)
    prompt_seeds = prompt_seeds_of(object_task().prompts.retain, [0, 1])[:prompts]
    cost, _ = timed(lambda: draw(model, prompt_seeds, Sampling(steps, 3.0, side, side)))
    return {**cost, "calls": counter.calls}


def measure_evaluation(folder: Path) -> dict[str, Any]:
    """Seconds of an evaluation of one patch, calls of the network in this process, and a digest of all figures."""
    model, task = load(MODEL), object_task()
    patch = unlearn(model, Uce(), task.prompts, Settings(width=SIDE, height=SIDE, weights="text_projections"))
    networks = Networks(Lpips(), Clip.load(SHIPPED_FOLDER))
    plan = Plan.of(task.retain, task.forget, 1000, SEEDS, FORGET_SEEDS)
    studio = Studio(PipelineDrawing(model, Sampling(EVALUATED_STEPS, 3.0, SIDE, SIDE)), PictureCache(folder))
    candidates = {"uce": Candidate(studio.cached(Variant(patch)), {})}
    base, comparison = studio.cached(Variant()), Comparison(networks.alexnet, plan)
    counter = Counter(model.denoiser)
    cost, found = timed(lambda: evaluate(base, candidates, comparison, networks, {}, studio.bare(Variant())))
    figures = [[entry.retention.summary(), entry.quality.summary()] for entry in found]
    digest = sha256(json.dumps(figures).encode()).hexdigest()
    return {**cost, "calls": counter.calls, "pictures": 2 * len(plan.prompt_seeds), "figures": digest}


def measure_training(folder: Path) -> dict[str, Any]:
    """Seconds of training with OVW, and calls of the network in this process; the patch is in the folder."""
    model: DiffusersModel = load(MODEL)
    counter = Counter(model.denoiser)
    cost, patch = timed(lambda: unlearn(model, Ovw(), object_task().prompts, TRAINED))
    if current().is_main:
        patch.save(folder / f"{current().count}.safetensors")
    return {**cost, "calls": counter.calls}


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "concepts": lambda count: measure_concepts(int(count)),
    "pictures": lambda *numbers: measure_pictures(*map(int, numbers)),
    "evaluation": lambda folder: measure_evaluation(Path(folder)),
    "training": lambda folder: measure_training(Path(folder)),
}


def growth(repeats: int) -> dict[str, list[dict[str, float]]]:
    """Seconds and calls against concepts, prompts, picture size and steps."""
    cases: dict[tuple[str, int], tuple[str | int, ...]] = {}
    cases |= {("concepts", count): ("concepts", count) for count in CONCEPTS}
    cases |= {("prompts", count): ("pictures", count, SIDE, FEW) for count in PROMPTS}
    cases |= {("side", side): ("pictures", PICTURES, side, FEW) for side in SIZES}
    cases |= {("steps", steps): ("pictures", PICTURES, SIDE, steps) for steps in STEPS}
    found = medians(
        in_turns([*cases], repeats, lambda case, _: in_processes(1, "scaling", "--measure", *map(str, cases[case])))
    )
    kinds = dict.fromkeys(kind for kind, _ in cases)
    return {kind: [{kind: count, **found[kind, count]} for own, count in cases if own == kind] for kind in kinds}


def processes(repeats: int) -> dict[str, Any]:
    """Evaluation and training in one process and in two: medians, how much faster, and whether they agree."""
    evaluated = in_turns(PROCESSES, repeats, lambda count, _: _fresh(count, "evaluation"))
    digests = {run.pop("figures") for each in evaluated for run in each.values()}
    trained, differences = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            trained.append({count: _measured(count, "training", folder) for count in PROCESSES})
            differences.append(_difference(*(Path(folder) / f"{count}.safetensors" for count in PROCESSES)))
    runs = {"evaluation": medians(evaluated), "training": medians(trained)}
    return {
        **{f"{name}_speedup": _ratio(run, "seconds") for name, run in runs.items()},
        **{f"{name}_processor_speedup": _ratio(run, "processor seconds") for name, run in runs.items()},
        "evaluation_speedups": [_ratio(each, "seconds") for each in evaluated],
        "figures_identical": len(digests) == 1,
        "patch_relative_difference": max(differences),
        "runs": runs,
    }


def _ratio(run: Mapping[int, Mapping[str, float]], figure: str) -> float:
    return run[1][figure] / run[2][figure]


def _fresh(count: int, name: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return _measured(count, name, folder)


def _measured(count: int, name: str, folder: str) -> Any:
    return in_processes(count, "scaling", "--measure", name, folder)


def _difference(first: Path, second: Path) -> float:
    """The norm of two patches' difference, relative to that of the first."""
    one, other = (_row(load_file(path)) for path in (first, second))
    return float((one - other).norm() / one.norm())


def _row(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def show(figures: dict[str, Any]) -> None:
    """Prints them as tables."""
    for kind, rows in figures["growth"].items():
        print(f"{kind:>10} {'seconds':>9} {'calls':>6}")
        for row in rows:
            print(f"{row[kind]:10} {row['seconds']:9.3f} {row['calls']:6.0f}")
    shared = figures["processes"]
    for name, run in shared["runs"].items():
        seconds = ", ".join(f"{own['seconds']:.2f} s in {count}" for count, own in run.items())
        print(f"{name}: {seconds} processes, {shared[f'{name}_speedup']:.2f} times as fast")
        print(f"  by the main process's processor seconds {shared[f'{name}_processor_speedup']:.2f} times")
    print(f"figures identical: {shared['figures_identical']}; patches differ {shared['patch_relative_difference']:.1e}")
    print(figures["machine"])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="How far runs scale.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each case, in turns; medians are shown")
    parser.add_argument("--measure", nargs="+", metavar="CASE", help="one measurement, in these processes")
    args = parser.parse_args(arguments)
    if args.measure:
        name, *numbers = args.measure
        with launched("cpu"):
            found = MEASUREMENTS[name](*numbers)
            if current().is_main:
                print(json.dumps(found))
        return
    figures = {
        "processes": processes(args.repeats),
        "growth": growth(args.repeats),
        "repeats": args.repeats,
        "machine": f"{machine()}, Python {platform.python_version()}, one thread a process",
    }
    show(figures)
    write_figures(figures, args.json)


if __name__ == "__main__":
    main()
