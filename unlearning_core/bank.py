"""Latents to train on, with every prediction of the frozen base model that an objective compares with.

They come from the base's own sampling trajectories, or from pictures (the base's or the user's) at random noise.
Guided sampling needs the base's predictions at each step anyway. They are kept, so that the training loop calls the
trained network only; ESD's reference code restarts a sampling run for every training step instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .model import Cond, DiffusionModel, noise_prediction

BATCH = 16  # most runs that are sampled together
PIXELS = BATCH * 512**2  # and most pixels
SEEDS = 2**64  # how many there are


@dataclass(frozen=True)
class Run:
    """One sampling run of the base, or one picture.

    `prompt` is what the trained model will see at the run's latents, `overwrite` what it is to draw instead (a retain
    prompt is its own), `guide` the one of the two that the run follows.
    """

    prompt: str
    overwrite: str
    guide: str
    seed: int


@dataclass(frozen=True)
class Batch:
    """Latents [B, C, H, W] at sigma [B] on the way to pictures x0, and the frozen base's noise predictions there."""

    x: Tensor
    x0: Tensor
    sigma: Tensor
    conds: list[Cond]
    overwrites: list[Cond]
    e_cond: Tensor  # under the run's prompt
    e_uncond: Tensor  # under the empty prompt
    e_overwrite: Tensor  # under the run's overwrite prompt

    def __len__(self) -> int:
        return len(self.conds)

    @property
    def noise(self) -> Tensor:
        """The noise prediction that leads to x0: the target of the denoising loss."""
        return (self.x - self.x0) / self.sigma.view(-1, *[1] * (self.x.ndim - 1))

    def join(self, other: Batch) -> Batch:
        """This batch followed by `other`."""
        return Batch(*(_joined(getattr(self, spec.name), getattr(other, spec.name)) for spec in fields(Batch)))


@dataclass(frozen=True)
class Trajectories:
    """N runs of latents and noise predictions [N, steps, C, H, W] at sigma [steps], with their pictures x0 [N, ...].

    sigma is on the model's device, where `pick` moves its latents; the others are large and stay on the CPU.
    """

    runs: list[Run]
    x: Tensor
    x0: Tensor
    sigma: Tensor
    conds: list[Cond]
    overwrites: list[Cond]
    e_cond: Tensor
    e_uncond: Tensor
    e_overwrite: Tensor

    def pick(self, count: int, generator: torch.Generator) -> Batch:
        """`count` latents at random runs and steps."""
        run = torch.randint(len(self.conds), (count,), generator=generator)
        step = torch.randint(len(self.sigma), (count,), generator=generator)
        device = self.sigma.device
        stacks = (self.x, self.e_cond, self.e_uncond, self.e_overwrite)
        x, e_cond, e_uncond, e_overwrite = (stack[run, step].to(device) for stack in stacks)
        x0, sigma = self.x0[run].to(device), self.sigma[step.to(device)]
        conds, overwrites = ([stack[index] for index in run.tolist()] for stack in (self.conds, self.overwrites))
        return Batch(x, x0, sigma, conds, overwrites, e_cond, e_uncond, e_overwrite)


@dataclass(frozen=True)
class Bank:
    """What a run trains on."""

    forget: Trajectories
    retain: Trajectories | None  # None when nothing is to be held


def forget_runs(pairs: Sequence[tuple[str, str]], least: int, seed: int, guides: Sequence[int]) -> list[Run]:
    """At least `least` runs over the (forget, overwrite) pairs, each followed by twins under the pair's `guides`.

    Guide 0 is the forget prompt, 1 the overwrite prompt: a model that has learned to overwrite visits its latents.
    """
    runs = []
    for index in range(max(-(-least // len(guides)), len(pairs))):
        pair = pairs[index % len(pairs)]
        runs += [Run(*pair, pair[guide], (seed + index) % SEEDS) for guide in guides]
    return runs


def retain_runs(prompts: Sequence[str], least: int, seed: int) -> list[Run]:
    """At least `least` runs over the prompts to hold, each its own target."""
    chosen = [prompts[index % len(prompts)] for index in range(max(least, len(prompts)))]
    return [Run(prompt, prompt, prompt, (seed + index) % SEEDS) for index, prompt in enumerate(chosen)]


@torch.no_grad()
def sample_trajectories(
    model: DiffusionModel,
    runs: Sequence[Run],
    width: int,
    height: int,
    steps: int = 20,
    cfg: float = 3.0,
    on_step: Callable[[], None] = lambda: None,
    at_once: int = BATCH,
) -> Trajectories:
    """Samples the runs with Euler's method at guidance scale `cfg` and keeps every step.

    width and height are in pixels; on_step is called `trajectory_calls(runs, steps, at_once)` times.
    """
    parts = _parts(runs, at_once)
    return _join_parts([_sample_batch(model, part, width, height, steps, cfg, on_step) for part in parts])


@torch.no_grad()
def noised_trajectories(
    model: DiffusionModel,
    runs: Sequence[Run],
    pictures: Tensor,
    steps: int = 20,
    on_step: Callable[[], None] = lambda: None,
    at_once: int = BATCH,
) -> Trajectories:
    """Each run's picture, a clean latent of `pictures` [N, C, H, W], at `steps` noise levels with its run's noise.

    on_step is called `trajectory_calls(runs, steps, at_once)` times.
    """
    parts = zip(_parts(runs, at_once), pictures.split(at_once), strict=True)
    return _join_parts([_noise_batch(model, part, x0.to(model.device), steps, on_step) for part, x0 in parts])


def trajectory_calls(runs: Sequence[Run], steps: int, at_once: int) -> int:
    """How often the two functions above report a step."""
    return len(_parts(runs, at_once)) * steps


def runs_at_once(width: int, height: int) -> int:
    """How many runs of pictures of this size in pixels are sampled together."""
    return min(BATCH, max(1, PIXELS // (width * height)))


class _Predictions(NamedTuple):
    """The base's noise predictions at one noise level."""

    e_cond: Tensor
    e_uncond: Tensor
    e_overwrite: Tensor

    def cpu(self) -> _Predictions:
        """On the CPU."""
        return _Predictions(*(e.cpu() for e in self))


class _Teacher:
    """The frozen base under the prompts of some runs."""

    def __init__(self, model: DiffusionModel, runs: Sequence[Run]) -> None:
        self.model = model
        self.conds = model.encode([run.prompt for run in runs])
        self.overwrites = model.encode([run.overwrite for run in runs])
        self.unconds = model.encode([""]) * len(runs)
        self.same = all(run.overwrite == run.prompt for run in runs)

    def __call__(self, x: Tensor, sigma: Tensor) -> _Predictions:
        """At x [B, C, H, W] and one sigma []."""
        sigmas = sigma.expand(len(x))
        e_cond = noise_prediction(self.model, x, sigmas, self.conds)
        e_uncond = noise_prediction(self.model, x, sigmas, self.unconds)
        e_overwrite = e_cond if self.same else noise_prediction(self.model, x, sigmas, self.overwrites)
        return _Predictions(e_cond, e_uncond, e_overwrite)


def _sample_batch(
    model: DiffusionModel,
    runs: list[Run],
    width: int,
    height: int,
    steps: int,
    cfg: float,
    on_step: Callable[[], None],
) -> Trajectories:
    teacher = _Teacher(model, runs)
    sigmas = model.sigmas(steps)
    x = model.noise([run.seed for run in runs], width, height)
    by_overwrite = torch.tensor([run.guide == run.overwrite for run in runs])
    guide_mask = by_overwrite.to(x.device).view(-1, *[1] * (x.ndim - 1))

    latents, predictions = [], []
    for sigma, sigma_next in pairwise(sigmas):
        e = teacher(x, sigma)
        latents.append(x.cpu())
        predictions.append(e.cpu())
        guide = torch.where(guide_mask, e.e_overwrite, e.e_cond)
        x = x + (sigma_next - sigma) * (e.e_uncond + cfg * (guide - e.e_uncond))
        on_step()
    return _stack_steps(runs, teacher, sigmas[:-1], x, latents, predictions)


def _noise_batch(
    model: DiffusionModel, runs: list[Run], x0: Tensor, steps: int, on_step: Callable[[], None]
) -> Trajectories:
    teacher = _Teacher(model, runs)
    sigmas = model.sigmas(steps)[:-1]
    generators = [torch.Generator().manual_seed(run.seed) for run in runs]
    latents, predictions = [], []
    for sigma in sigmas:
        noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators])
        x = model.noised(x0, noise.to(x0), sigma.expand(len(x0)))
        latents.append(x.cpu())
        predictions.append(teacher(x, sigma).cpu())
        on_step()
    return _stack_steps(runs, teacher, sigmas, x0, latents, predictions)


def _stack_steps(
    runs: list[Run],
    teacher: _Teacher,
    sigma: Tensor,
    x0: Tensor,
    latents: list[Tensor],
    predictions: list[_Predictions],
) -> Trajectories:
    e_cond, e_uncond, e_overwrite = (torch.stack(column, dim=1) for column in zip(*predictions, strict=True))
    x = torch.stack(latents, dim=1)
    return Trajectories(runs, x, x0.cpu(), sigma, teacher.conds, teacher.overwrites, e_cond, e_uncond, e_overwrite)


def _parts(runs: Sequence[Run], at_once: int) -> list[list[Run]]:
    return [list(runs[start : start + at_once]) for start in range(0, len(runs), at_once)]


def _join_parts(parts: Sequence[Trajectories]) -> Trajectories:
    columns = {spec.name: [getattr(part, spec.name) for part in parts] for spec in fields(Trajectories)}
    shared = {"sigma": columns.pop("sigma")[0]}
    return Trajectories(**{name: _joined(*values) for name, values in columns.items()}, **shared)


def _joined(first: Any, *others: Any) -> Any:
    """Tensors or lists, one behind the other."""
    return torch.cat([first, *others]) if isinstance(first, Tensor) else sum(others, first)
