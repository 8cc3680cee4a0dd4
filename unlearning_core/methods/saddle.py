"""Saddle: hold the retain prompts under the constraint that the forget prompts' predictions move far enough.

Gradient descent on the weights, ascent on the multiplier m. tau is relative to what the prompt does in the base, so one
margin suits all models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..options import option
from ..processes import current
from .base import HELP, OWN_READING, GradientMethod, Objective, Step, Training

SMOOTHING = 0.8  # of L_forget over steps: a few latents at random sigmas say little about the constraint


@dataclass(frozen=True)
class Saddle(GradientMethod):
    """The Lagrangian's options."""

    label: ClassVar[str] = "Saddle (constrained)"
    summary: ClassVar[str] = "move a set distance away, held back by the retain prompts"
    equation: ClassVar[str] = (
        "min over the weights, max over m >= 0: help_weight * L_help + m * (tau - L_forget)\n"
        'L_forget = ||e(x, c_f) - e0(x, c_f)||^2, tau = margin * ||e0(x, c_f) - e0(x, "")||^2'
    )
    source: ClassVar[str] = OWN_READING
    uses_overwrite: ClassVar[bool] = False
    weights: ClassVar[str] = "cross_attention_kv"
    reads: ClassVar[tuple[str, ...]] = ("e_cond", "e_uncond")

    help_weight: float = option(5.0, 0.0, 1000.0, HELP)
    margin: float = option(8.0, 0.01, 100.0, "how far to move, in units of the base's own ||e0(c_f) - e0('')||^2")
    ascent: float = option(0.03, 0.001, 10.0, "step size of the multiplier", step=0.01)
    damping: float = option(5.0, 0.0, 100.0, "how strongly to pull back what moved too far")
    most: float = option(10.0, 0.1, 1000.0, "upper bound of the multiplier")

    def begin(self, training: Training) -> Objective:
        forget = training.bank.forget
        tau = self.margin * F.mse_loss(forget.e_cond, forget.e_uncond).item()
        _step_aside(training)
        return _Lagrangian(self, tau, training.model.device)


class _Lagrangian:
    """The objective with its multiplier, on the device: to read a number there is to wait for it."""

    def __init__(self, method: Saddle, tau: float, device: torch.device) -> None:
        self.method, self.tau = method, tau
        self.multiplier = torch.zeros((), device=device)
        self.moved = torch.zeros((), device=device)  # L_forget / tau, smoothed

    def loss(self, step: Step) -> Tensor:
        moved = F.mse_loss(step.e_forget, step.forget.e_cond) / self.tau
        whole = current().total(step.share * moved.detach())  # the multiplier is one for all rows of the batch
        self.moved = SMOOTHING * self.moved + (1 - SMOOTHING) * whole
        lacking = 1 - self.moved
        self.multiplier = (self.multiplier + self.method.ascent * lacking).clamp(0.0, self.method.most)
        return (self.multiplier + self.method.damping * lacking) * (1 - moved) * self.tau

    def figures(self) -> dict[str, float]:
        return {"multiplier": self.multiplier.item(), "L_forget / tau": self.moved.item()}


@torch.no_grad()
def _step_aside(training: Training) -> None:
    """One random step of the learning rate: at e = e0, L_forget has no gradient."""
    for delta in training.deltas.values():
        for parameter in delta.parameters():
            noise = torch.randn(parameter.shape, generator=training.generator)
            parameter.add_(training.learning_rate * noise.to(parameter))
