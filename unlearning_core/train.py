"""The one training loop of every gradient method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .bank import Bank, Run, Trajectories, forget_runs, retain_runs, sample_trajectories, trajectory_calls
from .deltas import Delta, make_deltas
from .fingerprint import Fingerprint
from .methods import GradientMethod
from .methods.base import check_ranges, option
from .model import SELECTIONS, DiffusionModel, noise_prediction, select
from .patch import Record, UnlearningPatch
from .prompts import Prompts


@dataclass(frozen=True)
class Settings:
    """How to train. Raises ValueError for a value outside its range."""

    steps: int = option(80, 1, 100_000, "training steps", step=1)
    learning_rate: float = option(5e-5, 1e-8, 1.0, "Adam's learning rate", step=1e-6)
    rank: int = option(0, 0, 1024, "LoRA rank; 0 trains full weight deltas", step=1)
    seed: int = option(0, 0, 2**64 - 1, "seed of trajectories, batches and LoRA factors", step=1)
    width: int = option(512, 16, 16384, "width of the training pictures in pixels", step=8)
    height: int = option(512, 16, 16384, "height of the training pictures in pixels", step=8)
    batch_size: int = option(6, 1, 256, "forget latents a step, and as many retain latents with L_help", step=1)
    runs: int = option(16, 1, 4096, "least number of base trajectories to forget on, and again to retain on", step=1)
    run_steps: int = option(20, 2, 1000, "sampling steps of a base trajectory", step=1)
    run_cfg: float = option(3.0, 0.0, 100.0, "guidance scale of the base trajectories")
    weights: str = "cross_attention_kv"

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.weights not in SELECTIONS:
            raise ValueError(f"weights: {self.weights!r} is unknown; choose one of {', '.join(SELECTIONS)}")


@dataclass(frozen=True)
class Progress:
    """Told after every base sampling step and every training step."""

    done: int
    total: int
    loss: float | None = None  # of the training step just taken


def unlearn(
    model: DiffusionModel,
    method: GradientMethod,
    prompts: Prompts,
    settings: Settings,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> UnlearningPatch:
    """Trains deltas of the selected weights and returns them; the model is left as it was.

    Raises ValueError when the model lacks the selected weights, or the loss is no longer a number.
    """
    base = model.weights()
    chosen = {name: base[name] for name in select(list(base), settings.weights)}
    deltas = make_deltas(chosen, settings.rank, settings.seed, model.device)
    held = method.help_weight > 0
    forget = forget_runs(prompts.pairs, settings.runs, settings.seed, method.follows_overwrite)
    retain = retain_runs(held_prompts(prompts), settings.runs, settings.seed) if held else []
    calls = trajectory_calls(forget, settings.run_steps) + trajectory_calls(retain, settings.run_steps)
    report = Reporter(on_progress, calls + settings.steps)

    def trajectories(runs: list[Run]) -> Trajectories:
        size = (settings.width, settings.height)
        return sample_trajectories(model, runs, *size, settings.run_steps, settings.run_cfg, report)

    bank = Bank(trajectories(forget), trajectories(retain) if held else None)
    with model.attach(deltas):
        train(model, method, deltas, bank, settings, report)
    tensors = {
        key: value.detach().cpu() for name, delta in deltas.items() for key, value in delta.tensors(name).items()
    }
    return UnlearningPatch(tensors, Record.of(method, prompts, settings, Fingerprint.of(base)))


def held_prompts(prompts: Prompts) -> list[str]:
    """What L_help holds: the retain prompts, the empty prompt and the overwrite targets."""
    return list(dict.fromkeys([*prompts.retain, "", *prompts.overwrite]))


class Reporter:
    """Counts steps for `on_progress`."""

    def __init__(self, on_progress: Callable[[Progress], None], total: int) -> None:
        self.on_progress = on_progress
        self.done, self.total = 0, total

    def __call__(self, loss: float | None = None) -> None:
        self.done += 1
        self.on_progress(Progress(self.done, self.total, loss))


def train(
    model: DiffusionModel,
    method: GradientMethod,
    deltas: dict[str, Delta],
    bank: Bank,
    settings: Settings,
    report: Callable[[float], None],
) -> None:
    """Fits the attached deltas with Adam to the method's forget loss plus help_weight * L_help.

    L_help = ||e(x_r, c_r) - e0(x_r, c_r)||^2 on the retain trajectories.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = [parameter for delta in deltas.values() for parameter in delta.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    for step in range(settings.steps):
        forget = bank.forget.pick(settings.batch_size, generator)
        batch = forget.join(bank.retain.pick(settings.batch_size, generator)) if bank.retain else forget
        e = noise_prediction(model, batch.x, batch.sigma, batch.conds)
        loss = method.forget_loss(e[: len(forget)], forget)
        if bank.retain:
            help_loss = F.mse_loss(e[len(forget) :], batch.e_cond[len(forget) :])
            loss = loss + method.help_weight * help_loss
        if not loss.isfinite():
            raise ValueError(f"training: the loss is {loss.item()} at step {step + 1}; lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(loss.item())
