"""ESD here against ESD as its own code trains it: `python -m benchmarks.esd_reference [--json FILE]`.

The reference is written after the description of erasing's diffusers code (esd_sd.py): two networks, and for every step
a fresh partial denoise of the frozen one under guidance, two more calls of it, and one of the trained network, at batch
1. Both train the same weights of the shipped model with Adam, as many steps, at the same rate, with one thread. Each
measurement is a process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.processes import Counter, in_process, in_turns, machine, medians, timed, write_figures
from benchmarks.tasks import Task, object_task
from unlearning_core.deltas import FullDelta
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.methods.esd import Esd
from unlearning_core.metrics.forgetting import accuracies
from unlearning_core.metrics.plan import prompt_seeds_of
from unlearning_core.model import DiffusionModel, noise_prediction
from unlearning_core.sampling import Sampling, guided, sample_euler
from unlearning_core.selections import selections_of
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.unlearn import unlearn

SIDE = 128  # pixels
SIZE = {"width": SIDE, "height": SIDE}
STEPS, RATE, ETA = 200, 5e-4, 1.0
SAMPLING_STEPS, CFG = 50, 3.0  # of the reference's partial denoise
DRAWN = Sampling(steps=15, cfg=3.0, width=SIDE, height=SIDE)
WEIGHTS = "cross_attention"  # ESD-x
REFERENCE = "reference"
OURS: dict[str, dict[str, Any]] = {
    "batch 1": {"batch_size": 1},
    "batch 6": {"batch_size": 6},
    "rank 16": {"batch_size": 1, "rank": 16, "learning_rate": 2 * RATE},
}
REPEATS = 5


def measure(name: str, seed: int) -> dict[str, float]:
    """One training: seconds, calls, memory, and the share of forget pictures without the concept afterwards."""
    torch.set_num_threads(1)
    return reference(object_task(), seed) if name == REFERENCE else ours(object_task(), seed, OURS[name])


def ours(task: Task, seed: int, differing: Mapping[str, Any]) -> dict[str, float]:
    """By this library, with these settings beside those that both share."""
    model = load(MODEL)
    counter = Counter(model.denoiser)
    settings = Settings(
        **{"steps": STEPS, "learning_rate": RATE, "seed": seed, "weights": WEIGHTS, **SIZE, **differing}
    )
    seconds, patch = timed(lambda: unlearn(model, Esd(eta=ETA), task.prompts, settings))
    found = counter.figures()
    trained = sum(tensor.numel() for tensor in patch.tensors.values())
    with model.patched(patch):
        accuracy = unlearning_accuracy(model, task)
    return {**seconds, **found, "UA": accuracy, "MB": megabytes(weights_of(model) + 3 * trained)}


def reference(task: Task, seed: int) -> dict[str, float]:
    """As erasing's code does it."""
    base, trained = load(MODEL), load(MODEL)
    counter = Counter(base.denoiser, trained.denoiser)
    names = selections_of(trained, (SIDE, SIDE)).of(WEIGHTS)
    deltas = {name: FullDelta(trained.weights()[name], trained.device) for name in names}
    parameters = [delta.diff for delta in deltas.values()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    generator = torch.Generator().manual_seed(seed)

    def train() -> None:
        for _ in range(STEPS):
            prompt = task.prompts.forget[pick(len(task.prompts.forget), generator)]
            loss = reference_loss(base, trained, prompt, generator, SIDE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    with trained.attach(deltas):
        seconds, _ = timed(train)
        found = counter.figures()
        with torch.no_grad():
            accuracy = unlearning_accuracy(trained, task)
    # Its trained weights are the second network's own, not changes beside them.
    size = 2 * weights_of(base) + 2 * sum(parameter.numel() for parameter in parameters)
    return {**seconds, **found, "UA": accuracy, "MB": megabytes(size)}


def reference_loss(
    base: DiffusionModel,
    trained: DiffusionModel,
    prompt: str,
    generator: torch.Generator,
    side: int,
    done: int | None = None,
) -> Tensor:
    """||e(x, c_f) - [e0(x, "") - eta (e0(x, c_f) - e0(x, ""))]||^2 at x of a fresh, partial run of the base.

    Pictures have `side` pixels a side; the run ends after `done` steps, any number of them when it is None.
    """
    conds = base.encode([prompt, ""])
    sigmas = base.sigmas(SAMPLING_STEPS)
    done = pick(SAMPLING_STEPS, generator) if done is None else done
    x = base.noise([pick(2**31, generator)], side, side)
    with torch.no_grad():

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            e_cond, e_uncond = noise_prediction(base, x.repeat(2, 1, 1, 1), sigma.repeat(2), conds).split(1)
            return guided(e_uncond, e_cond, CFG)

        x, sigma = sample_euler(predict, x, sigmas[: done + 1]), sigmas[done : done + 1]
        e_cond, e_uncond = (noise_prediction(base, x, sigma, [cond]) for cond in conds)
    return F.mse_loss(noise_prediction(trained, x, sigma, conds[:1]), e_uncond - ETA * (e_cond - e_uncond))


def pick(count: int, generator: torch.Generator) -> int:
    """A number below `count`."""
    return int(torch.randint(count, (), generator=generator))


def weights_of(model: DiffusersModel) -> int:
    """How many its network has."""
    return sum(parameter.numel() for parameter in model.denoiser.parameters())


def megabytes(numbers: int) -> float:
    """Of so many numbers in fp32."""
    return 4 * numbers / 2**20


def unlearning_accuracy(model: DiffusersModel, task: Task) -> float:
    """The share of 96 forget pictures that do not show the concept."""
    prompt_seeds = prompt_seeds_of(task.forget, range(1000, 1000 + task.forget_seeds))
    judge = Judge.load(MODEL / "judge.safetensors")
    shown = accuracies(judge, draw(model, prompt_seeds, DRAWN), [prompt for prompt, _ in prompt_seeds], task.forget)
    assert shown.ua is not None
    return shown.ua


def flops() -> dict[str, int]:
    """Of one forward pass, and of one step of training, for one sample."""
    model = load(MODEL)
    names = selections_of(model, (SIDE, SIDE)).of(WEIGHTS)
    deltas = {name: FullDelta(model.weights()[name], model.device) for name in names}
    x, sigma, conds = model.noise([0], SIDE, SIDE), model.sigmas(1)[:1], model.encode(["a cat face"])
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        model.predict_x0(x, sigma, conds)
    with model.attach(deltas), FlopCounterMode(display=False) as step:
        model.predict_x0(x, sigma, conds).sum().backward()
    return {"a forward pass": forward.get_total_flops(), "a training step": step.get_total_flops()}


def summary(repeats: int) -> dict[str, Any]:
    """All figures: medians over seeds, which take turns."""
    runs = medians(
        in_turns(
            [REFERENCE, *OURS], repeats, lambda name, seed: in_process("esd_reference", "--measure", name, str(seed))
        )
    )
    theirs, single, six, low_rank = (runs[name] for name in (REFERENCE, *OURS))
    return {
        "speedup": theirs["processor seconds"] / single["processor seconds"],
        "speedup_batch_6": theirs["processor seconds"] / six["processor seconds"],
        "memory_ratio": single["MB"] / theirs["MB"],
        "memory_ratio_rank_16": low_rank["MB"] / theirs["MB"],
        "unlearning_accuracy": single["UA"],
        "unlearning_accuracy_reference": theirs["UA"],
        "runs": runs,
        "flops": flops(),
        "steps": STEPS,
        "learning_rate": RATE,
        "repeats": repeats,
        "machine": machine(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.esd_reference", description="ESD against its own code.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="seeds")
    parser.add_argument("--measure", nargs=2, metavar=("RUN", "SEED"), help="one measurement, in this process")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]))))
        return
    figures = summary(args.repeats)
    print("             seconds  processor  calls  samples     UA   MB of weights and optimizer")
    for name, row in figures["runs"].items():
        print(
            f"{name:10} {row['seconds']:9.1f} {row['processor seconds']:10.1f} {row['calls']:6.0f} "
            f"{row['samples']:8.0f} {row['UA']:6.3f} {row['MB']:6.1f}"
        )
    print(
        f"speedup {figures['speedup']:.1f} at batch 1, {figures['speedup_batch_6']:.1f} at batch 6; memory "
        f"{figures['memory_ratio']:.2f}, {figures['memory_ratio_rank_16']:.2f} at rank 16; {figures['machine']}"
    )
    write_figures(figures, args.json)


if __name__ == "__main__":
    main()
