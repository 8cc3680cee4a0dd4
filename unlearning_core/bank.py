"""Latents to train on: the frozen base model's own sampling trajectories, with every prediction made on the way.

Guided sampling needs the base's predictions at each step anyway. They are kept, so that the training loop calls the
trained network only; ESD's reference code restarts a sampling run for every training step instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .model import Cond, DiffusionModel, noise_prediction

BATCH = 16  # runs sampled together


@dataclass(frozen=True)
class Run:
    """One sampling run of the base.

    `prompt` is what the trained model will see at the run's latents, `overwrite` what it is to draw instead (a retain
    prompt is its own), `guide` the one of the two that the run follows.
    """

    prompt: str
    overwrite: str
    guide: str
    seed: int


@dataclass(frozen=True)
class Batch:
    """Latents [B, C, H, W] at sigma [B], and the frozen base's noise predictions there."""

    x: Tensor
    sigma: Tensor
    conds: list[Cond]
    e_cond: Tensor  # under the run's prompt
    e_uncond: Tensor  # under the empty prompt
    e_overwrite: Tensor  # under the run's overwrite prompt

    def __len__(self) -> int:
        return len(self.conds)

    def join(self, other: Batch) -> Batch:
        """This batch followed by `other`."""
        names = ("x", "sigma", "e_cond", "e_uncond", "e_overwrite")
        joined = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names}
        return Batch(conds=self.conds + other.conds, **joined)


@dataclass(frozen=True)
class Trajectories:
    """Every step of N runs: latents and noise predictions [N, steps, C, H, W] at sigma [steps]."""

    x: Tensor
    sigma: Tensor
    conds: list[Cond]
    e_cond: Tensor
    e_uncond: Tensor
    e_overwrite: Tensor

    def pick(self, count: int, generator: torch.Generator) -> Batch:
        """`count` latents at random runs and steps."""
        run = torch.randint(len(self.conds), (count,), generator=generator)
        step = torch.randint(len(self.sigma), (count,), generator=generator)
        stacks = (self.x, self.e_cond, self.e_uncond, self.e_overwrite)
        x, e_cond, e_uncond, e_overwrite = (stack[run.to(stack.device), step.to(stack.device)] for stack in stacks)
        sigma = self.sigma[step.to(self.sigma.device)]
        return Batch(x, sigma, [self.conds[index] for index in run.tolist()], e_cond, e_uncond, e_overwrite)


@dataclass(frozen=True)
class Bank:
    """What a run trains on."""

    forget: Trajectories
    retain: Trajectories | None  # None when nothing is to be held


def forget_runs(pairs: Sequence[tuple[str, str]], least: int, seed: int, follow_overwrite: bool) -> list[Run]:
    """At least `least` runs over the (forget, overwrite) pairs.

    With follow_overwrite each run under a forget prompt has a twin under its overwrite prompt: a model that has
    learned to overwrite visits the overwrite prompt's latents.
    """
    guides = 2 if follow_overwrite else 1
    runs = []
    for index in range(max(-(-least // guides), len(pairs))):
        pair = pairs[index % len(pairs)]
        runs += [Run(*pair, guide, seed + index) for guide in pair[:guides]]
    return runs


def retain_runs(prompts: Sequence[str], least: int, seed: int) -> list[Run]:
    """At least `least` runs over the prompts to hold, each its own target."""
    chosen = [prompts[index % len(prompts)] for index in range(max(least, len(prompts)))]
    return [Run(prompt, prompt, prompt, seed + index) for index, prompt in enumerate(chosen)]


@torch.no_grad()
def sample_trajectories(
    model: DiffusionModel,
    runs: Sequence[Run],
    width: int,
    height: int,
    steps: int = 20,
    cfg: float = 3.0,
    on_step: Callable[[], None] = lambda: None,
) -> Trajectories:
    """Samples the runs with Euler's method at guidance scale `cfg` and keeps every step.

    width and height are in pixels; on_step is called `trajectory_calls(runs, steps)` times.
    """
    parts = [
        _sample_batch(model, runs[start : start + BATCH], width, height, steps, cfg, on_step)
        for start in range(0, len(runs), BATCH)
    ]
    x, e_cond, e_uncond, e_overwrite = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("x", "e_cond", "e_uncond", "e_overwrite")
    )
    conds = [cond for part in parts for cond in part.conds]
    return Trajectories(x, parts[0].sigma, conds, e_cond, e_uncond, e_overwrite)


def trajectory_calls(runs: Sequence[Run], steps: int) -> int:
    """How often `sample_trajectories` reports a step."""
    return -(-len(runs) // BATCH) * steps


def _sample_batch(
    model: DiffusionModel,
    runs: Sequence[Run],
    width: int,
    height: int,
    steps: int,
    cfg: float,
    on_step: Callable[[], None],
) -> Trajectories:
    conds = model.encode([run.prompt for run in runs])
    overwrites = model.encode([run.overwrite for run in runs])
    unconds = model.encode([""]) * len(runs)
    own = all(run.overwrite == run.prompt for run in runs)
    guided_by_overwrite = torch.tensor([run.guide == run.overwrite for run in runs])
    sigmas = model.sigmas(steps)
    x = model.noise([run.seed for run in runs], width, height)
    guide_mask = guided_by_overwrite.to(x.device).view(-1, *[1] * (x.ndim - 1))

    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for sigma, sigma_next in pairwise(sigmas):
        sigma_batch = sigma.expand(len(runs))
        e_cond = noise_prediction(model, x, sigma_batch, conds)
        e_uncond = noise_prediction(model, x, sigma_batch, unconds)
        e_overwrite = e_cond if own else noise_prediction(model, x, sigma_batch, overwrites)
        kept.append((x, e_cond, e_uncond, e_overwrite))
        guide = torch.where(guide_mask, e_overwrite, e_cond)
        x = x + (sigma_next - sigma) * (e_uncond + cfg * (guide - e_uncond))
        on_step()
    x_all, e_cond_all, e_uncond_all, e_overwrite_all = (
        torch.stack(column, dim=1) for column in zip(*kept, strict=True)
    )
    return Trajectories(x_all, sigmas[:-1], conds, e_cond_all, e_uncond_all, e_overwrite_all)
