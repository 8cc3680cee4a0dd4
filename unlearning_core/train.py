"""The one training loop of every gradient method."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .adversaries import Adversaries, Challenge
from .latents import Batch
from .methods.base import GradientMethod, Objective, Step, Training
from .model import noise_prediction
from .processes import current

FUSED = ("cpu", "cuda")  # where one kernel is Adam
READ_EVERY = 8  # steps between two looks at the loss on a GPU, which then waits for all that is queued there


class _Met(NamedTuple):
    """Adversaries with their pictures, and the trained model's prediction e [B, C, *spatial] there."""

    adversaries: Adversaries
    challenge: Challenge
    e: Tensor


def train(training: Training, method: GradientMethod, objective: Objective) -> int:
    """Fits the attached deltas with Adam to the objective's loss, plus help_weight * L_help, plus the adversaries'.

    L_help = ||e(x_r, c_r) - e0(x_r, c_r)||^2 on the retain latents. Under adversaries' texts c_a, which learn in turn,
    it is ||e(x_a, c_a) - e0(x_a, c_o)||^2, and the learning rate falls to 0 along a cosine. Processes share each batch,
    and take the same step with the gradient of the whole. The loss is reported after every step on the CPU, else after
    every READ_EVERY steps and the last. Returns how many steps were taken: fewer where `on_progress` had `Enough`.
    Raises ValueError when the loss is no longer a number.
    """
    parameters = [parameter for delta in training.deltas.values() for parameter in delta.parameters()]
    processes = current()
    optimizer = torch.optim.Adam(_groups(training), fused=training.model.device.type in FUSED)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda index: _rate(training, index))
    every = 1 if training.model.device.type == "cpu" else READ_EVERY
    for index in range(training.steps):
        step, met = _predict(training)
        loss = step.share * _loss(method, objective, step, met)
        optimizer.zero_grad()
        lessons = met.adversaries.lessons(met.challenge, met.e) if met else []
        loss.backward(inputs=parameters)
        processes.total_gradients(parameters)
        optimizer.step()
        schedule.step()
        if met:
            met.adversaries.learn(met.challenge, lessons)
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


def _loss(method: GradientMethod, objective: Objective, step: Step, met: _Met | None) -> Tensor:
    loss = objective.loss(step)
    if method.help_weight > 0:
        assert step.retain is not None and step.e_retain is not None
        loss = loss + method.help_weight * F.mse_loss(step.e_retain, step.retain.e_cond)
    return loss + F.mse_loss(met.e, met.challenge.batch.e_overwrite) if met else loss


def _groups(training: Training) -> list[dict[str, Any]]:
    """Parameters that learn at one rate, by rates."""
    by_rate: dict[float, list[Tensor]] = {}
    for delta in training.deltas.values():
        by_rate.setdefault(training.learning_rate * delta.rate, []).extend(delta.parameters())
    return [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]


def _rate(training: Training, index: int) -> float:
    """What the learning rate is multiplied with at a step: adversaries do not rest, so that the weights must."""
    return (1 + math.cos(math.pi * index / training.steps)) / 2 if training.adversaries else 1.0


def _predict(training: Training) -> tuple[Step, _Met | None]:
    """New latents, this process's of the batch, and the trained model's predictions there from one call."""
    bank, count, generator, ratio = training.bank, training.batch_size, training.generator, training.retain_ratio
    adversaries = training.adversaries
    rows = current().rows(count)
    held = slice(rows.start * ratio, rows.stop * ratio)
    forget = bank.forget.sample(count, generator, rows)
    retain = bank.retain.sample(count * ratio, generator, held) if bank.retain else None
    challenge = adversaries.challenge(count, generator, rows) if adversaries else None
    batches: list[Batch | None] = [forget, retain, challenge.batch if challenge else None]
    asked = [batch for batch in batches if batch]
    x, sigma = (torch.cat([getattr(batch, name) for batch in asked]) for name in ("x", "sigma"))
    e = noise_prediction(training.model, x, sigma, [cond for batch in asked for cond in batch.conds])
    e_forget, e_retain, e_met = e.split([len(batch) if batch else 0 for batch in batches])
    step = Step(forget, e_forget, retain, e_retain if retain else None, len(forget) / count)
    return step, _Met(adversaries, challenge, e_met) if adversaries and challenge else None
