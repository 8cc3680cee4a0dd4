"""The one training loop of every gradient method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .bank import BankSettings
from .methods.base import GradientMethod, Objective, Step, Training
from .model import SELECTIONS, noise_prediction
from .options import check_ranges, option
from .sampling import Sampling


@dataclass(frozen=True)
class Settings:
    """How to train. Raises ValueError for a value outside its range."""

    steps: int = option(80, 1, 100_000, "training steps", step=1)
    learning_rate: float = option(5e-5, 1e-8, 1.0, "Adam's learning rate", step=1e-6)
    rank: int = option(0, 0, 1024, "LoRA rank; 0 trains full weight deltas", step=1)
    alpha: float = option(
        0.0, 0.0, 1024.0, "LoRA alpha: the factors' product counts alpha / rank; 0 is the rank", step=1.0
    )
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

    @property
    def lora_scale(self) -> float:
        """What the product of LoRA factors is multiplied with."""
        return self.alpha / self.rank if self.rank and self.alpha else 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the training pictures in pixels."""
        return self.width, self.height

    @property
    def sampling(self) -> Sampling:
        """How the base's trajectories are sampled."""
        return Sampling(self.run_steps, self.run_cfg, self.width, self.height)

    @property
    def bank(self) -> BankSettings:
        """How the bank is made."""
        return BankSettings(self.runs, self.seed, self.sampling)


def train(training: Training, method: GradientMethod, objective: Objective) -> None:
    """Fits the attached deltas with Adam to the objective's loss plus help_weight * L_help.

    L_help = ||e(x_r, c_r) - e0(x_r, c_r)||^2 on the retain latents. Raises ValueError when the loss is no longer a
    number.
    """
    parameters = [parameter for delta in training.deltas.values() for parameter in delta.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=training.learning_rate)
    for index in range(training.steps):
        step = _predict(training)
        loss = objective.loss(step)
        if method.help_weight > 0:
            assert step.retain is not None and step.e_retain is not None
            loss = loss + method.help_weight * F.mse_loss(step.e_retain, step.retain.e_cond)
        if not loss.isfinite():
            raise ValueError(f"training: the loss is {loss.item()} at step {index + 1}; lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.report(loss.item(), objective.figures())


def _predict(training: Training) -> Step:
    """New latents, and the trained model's predictions there from one call."""
    bank, count, generator = training.bank, training.batch_size, training.generator
    forget = bank.forget.sample(count, generator)
    retain = bank.retain.sample(count, generator) if bank.retain else None
    batch = forget.join(retain) if retain else forget
    e = noise_prediction(training.model, batch.x, batch.sigma, batch.conds)
    return Step(forget, e[: len(forget)], retain, e[len(forget) :] if retain else None)
