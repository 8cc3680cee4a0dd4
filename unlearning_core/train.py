"""The one training loop of every gradient method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .adversaries import Challenge, Chosen
from .deltas import FUSED
from .latents import Batch, Places, parts
from .methods.base import GradientMethod, Objective, Step, Training
from .model import noise_prediction
from .processes import current

READ_EVERY = 8  # steps between two looks at the loss on a GPU, which then waits for all that is queued there


class _Drawn(NamedTuple):
    """The whole batch of a step: where each kind of latents is taken from."""

    forget: Places
    retain: Places | None
    met: Chosen | None
    relearned: Places | None


class _Met(NamedTuple):
    """Adversaries' texts at pictures, and the trained model's prediction e [B, C, *spatial] there."""

    challenge: Challenge
    e: Tensor


def train(training: Training, method: GradientMethod, objective: Objective) -> int:
    """Fits the attached deltas with Adam to the objective's loss, plus help_weight * L_help, plus the adversaries'.

    L_help = ||e(x_r, c_r) - e0(x_r, c_r)||^2 on the retain latents. Under adversaries' texts c_a, which learn in turn,
    it is ||e(x_a, c_a) - e0(x_a, c_o)||^2; under a relearner's change of the weights, which learns in turn too, it is
    that at the forget prompts; with either the learning rate falls to 0 along a cosine. Processes share each batch,
    compute their rows in parts of `micro_batch`, and take the same step with the gradient of the whole: their patch is
    bit for bit that of one process with the same parts, but for the order in which more than two are summed up. The
    loss is reported after every step on the CPU, else after every READ_EVERY steps and the last. Returns how many steps
    were taken: fewer where `on_progress` had `Enough`. Raises ValueError when the loss is no longer a number.
    """
    parameters = [parameter for delta in training.deltas.values() for parameter in delta.parameters()]
    processes = current()
    optimizer = torch.optim.Adam(_groups(training), fused=training.model.device.type in FUSED)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda index: _rate(training, index))
    every = 1 if training.model.device.type == "cpu" else READ_EVERY
    own = parts(processes.rows(training.batch_size), training.micro_batch)
    for index in range(training.steps):
        drawn = _draw(training)
        optimizer.zero_grad()
        loss = torch.stack([_study(training, method, objective, drawn, rows, parameters) for rows in own]).sum()
        processes.total_gradients(parameters)
        optimizer.step()
        schedule.step()
        if training.adversaries and drawn.met:
            training.adversaries.learn(drawn.met)
        if training.relearner:
            training.relearner.learn()
        if (index + 1) % every and index + 1 < training.steps:
            training.report()
        else:
            training.report(_checked(loss, index + 1), objective.figures())
        if training.report.enough:
            _checked(loss, index + 1)
            return index + 1
    return training.steps


def _study(
    training: Training,
    method: GradientMethod,
    objective: Objective,
    drawn: _Drawn,
    rows: slice,
    parameters: Sequence[Tensor],
) -> Tensor:
    """Adds these rows' part of the gradients, those of attacks too, and returns their part of the loss."""
    step, met = _predict(training, drawn, rows)
    loss = step.share * _loss(method, objective, step, met)
    if training.adversaries and met:
        training.adversaries.study(met.challenge, met.e)
    loss.backward(inputs=parameters)
    if training.relearner and drawn.relearned:
        return loss.detach() + training.relearner.study(drawn.relearned, rows, parameters)
    return loss.detach()


def _checked(loss: Tensor, step: int) -> float:
    """The loss of all processes. Raises ValueError for one that is no number."""
    value: float = current().total(loss).item()
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
    """What the learning rate is multiplied with at a step: attacks do not rest, so that the weights must."""
    attacked = training.adversaries or training.relearner
    return (1 + math.cos(math.pi * index / training.steps)) / 2 if attacked else 1.0


def _draw(training: Training) -> _Drawn:
    """New latents for a step."""
    bank, count, generator = training.bank, training.batch_size, training.generator
    adversaries, relearner = training.adversaries, training.relearner
    return _Drawn(
        bank.forget.places(count, generator),
        bank.retain.places(count * training.retain_ratio, generator) if bank.retain else None,
        adversaries.chosen(count, generator) if adversaries else None,
        relearner.places(count, generator) if relearner else None,
    )


def _predict(training: Training, drawn: _Drawn, rows: slice) -> tuple[Step, _Met | None]:
    """Some rows of the batch, and the trained model's predictions there from one call."""
    bank, ratio, adversaries = training.bank, training.retain_ratio, training.adversaries
    forget = bank.forget.at(drawn.forget, rows)
    held = slice(rows.start * ratio, rows.stop * ratio)
    retain = bank.retain.at(drawn.retain, held) if bank.retain and drawn.retain else None
    challenge = adversaries.challenge(drawn.met, rows) if adversaries and drawn.met else None
    batches: list[Batch | None] = [forget, retain, challenge.batch if challenge else None]
    asked = [batch for batch in batches if batch]
    x, sigma = (torch.cat([getattr(batch, name) for batch in asked]) for name in ("x", "sigma"))
    e = noise_prediction(training.model, x, sigma, [cond for batch in asked for cond in batch.conds])
    e_forget, e_retain, e_met = e.split([len(batch) if batch else 0 for batch in batches])
    step = Step(forget, e_forget, retain, e_retain if retain else None, len(forget) / training.batch_size)
    return step, _Met(challenge, e_met) if challenge else None
