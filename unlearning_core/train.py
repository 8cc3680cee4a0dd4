"""The one training loop of every gradient method."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .methods.base import GradientMethod, Objective, Step, Training
from .model import noise_prediction
from .processes import current

FUSED = ("cpu", "cuda")  # where one kernel is Adam
READ_EVERY = 8  # steps between two looks at the loss on a GPU, which then waits for all that is queued there


def train(training: Training, method: GradientMethod, objective: Objective) -> int:
    """Fits the attached deltas with Adam to the objective's loss plus help_weight * L_help.

    L_help = ||e(x_r, c_r) - e0(x_r, c_r)||^2 on the retain latents. Processes share each batch, and take the same step
    with the gradient of the whole. The loss is reported after every step on the CPU, else after every READ_EVERY steps
    and the last. Returns how many steps were taken: fewer where `on_progress` had `Enough`. Raises ValueError when the
    loss is no longer a number.
    """
    parameters = [parameter for delta in training.deltas.values() for parameter in delta.parameters()]
    processes = current()
    optimizer = torch.optim.Adam(_groups(training), fused=training.model.device.type in FUSED)
    every = 1 if training.model.device.type == "cpu" else READ_EVERY
    for index in range(training.steps):
        step = _predict(training)
        loss = objective.loss(step)
        if method.help_weight > 0:
            assert step.retain is not None and step.e_retain is not None
            loss = loss + method.help_weight * F.mse_loss(step.e_retain, step.retain.e_cond)
        loss = step.share * loss
        optimizer.zero_grad()
        loss.backward()
        processes.total_gradients(parameters)
        optimizer.step()
        if (index + 1) % every and index + 1 < training.steps:
            training.report()
        else:
            training.report(_checked(loss, index + 1), objective.figures())
        if training.report.enough:
            _checked(loss, index + 1)
            return index + 1
    return training.steps


def _checked(loss: Tensor, step: int) -> float:
    """The loss of all processes. Raises ValueError for one that is no number."""
    value: float = current().total(loss.detach()).item()
    if not math.isfinite(value):
        raise ValueError(f"training: the loss is {value} at step {step}; lower the learning rate")
    return value


def _groups(training: Training) -> list[dict[str, Any]]:
    """Parameters that learn at one rate, by rates."""
    by_rate: dict[float, list[Tensor]] = {}
    for delta in training.deltas.values():
        by_rate.setdefault(training.learning_rate * delta.rate, []).extend(delta.parameters())
    return [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]


def _predict(training: Training) -> Step:
    """New latents, this process's of the batch, and the trained model's predictions there from one call."""
    bank, count, generator = training.bank, training.batch_size, training.generator
    rows = current().rows(count)
    forget = bank.forget.sample(count, generator, rows)
    retain = bank.retain.sample(count, generator, rows) if bank.retain else None
    batches = [forget, retain] if retain else [forget]
    x, sigma = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "sigma"))
    e = noise_prediction(training.model, x, sigma, [cond for batch in batches for cond in batch.conds])
    e_retain = e[len(forget) :] if retain else None
    return Step(forget, e[: len(forget)], retain, e_retain, len(forget) / count)
