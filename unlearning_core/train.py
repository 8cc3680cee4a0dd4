"""The one training loop of every gradient method."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .methods.base import GradientMethod, Objective, Step, Training
from .model import noise_prediction


def train(training: Training, method: GradientMethod, objective: Objective) -> None:
    """Fits the attached deltas with Adam to the objective's loss plus help_weight * L_help.

    L_help = ||e(x_r, c_r) - e0(x_r, c_r)||^2 on the retain latents. Raises ValueError when the loss is no longer a
    number.
    """
    parameters = [parameter for delta in training.deltas.values() for parameter in delta.parameters()]
    # Fused kernels round otherwise: on a CPU they would make other patches of a seed, and no faster.
    optimizer = torch.optim.Adam(parameters, lr=training.learning_rate, fused=training.model.device.type == "cuda")
    taken: tuple[Tensor, dict[str, float]] | None = None
    for index in range(training.steps):
        step = _predict(training)
        loss = objective.loss(step)
        if method.help_weight > 0:
            assert step.retain is not None and step.e_retain is not None
            loss = loss + method.help_weight * F.mse_loss(step.e_retain, step.retain.e_cond)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if taken:
            _tell(training, index, *taken)
        taken = loss.detach(), objective.figures()
    assert taken
    _tell(training, training.steps, *taken)


def _tell(training: Training, count: int, loss: Tensor, figures: dict[str, float]) -> None:
    """Reports the step `count`, one step late: reading its loss does not wait for a device that is at work."""
    value = loss.item()
    if not math.isfinite(value):
        raise ValueError(f"training: the loss is {value} at step {count}; lower the learning rate")
    training.report(value, figures)


def _predict(training: Training) -> Step:
    """New latents, and the trained model's predictions there from one call."""
    bank, count, generator = training.bank, training.batch_size, training.generator
    forget = bank.forget.sample(count, generator)
    retain = bank.retain.sample(count, generator) if bank.retain else None
    batches = [forget, retain] if retain else [forget]
    x, sigma = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "sigma"))
    e = noise_prediction(training.model, x, sigma, [cond for batch in batches for cond in batch.conds])
    return Step(forget, e[: len(forget)], retain, e[len(forget) :] if retain else None)
