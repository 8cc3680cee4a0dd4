"""Saddle: hold the retain prompts under the constraint that the forget prompts' own direction is gone.

Gradient descent on the weights, ascent on the multiplier m. How much is left of a direction is relative to what the
prompt does in the base, so one margin suits all models.
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

SMOOTHING = 0.8  # of what is left over steps: a few latents at random sigmas say little about the constraint


@dataclass(frozen=True)
class Saddle(GradientMethod):
    """The Lagrangian's options."""

    label: ClassVar[str] = "Saddle (constrained)"
    summary: ClassVar[str] = "take the prompt's own direction away, held back by the retain prompts"
    equation: ClassVar[str] = (
        "min over the weights, max over m >= 0: help_weight * L_help + m * (s + margin) * E||g||^2\n"
        's = <e(x, c_f) - e0(x, ""), g> / E||g||^2, g = e0(x, c_f) - e0(x, ""): what is left of it, 1 in the base'
    )
    source: ClassVar[str] = OWN_READING
    uses_overwrite: ClassVar[bool] = False
    weights: ClassVar[str] = "cross_attention_kv"
    reads: ClassVar[tuple[str, ...]] = ("e_cond", "e_uncond")

    help_weight: float = option(20.0, 0.0, 1000.0, HELP)
    margin: float = option(0.5, 0.0, 10.0, "how far to go on: 0 leaves nothing of the direction, 1 turns it round")
    ascent: float = option(0.03, 0.001, 10.0, "step size of the multiplier", step=0.01)
    damping: float = option(5.0, 0.0, 100.0, "how strongly to pull back what moved too far")
    most: float = option(10.0, 0.1, 1000.0, "upper bound of the multiplier")

    def begin(self, training: Training) -> Objective:
        forget = training.bank.forget
        size = F.mse_loss(forget.e_cond, forget.e_uncond).item()
        return _Lagrangian(self, size, training.model.device)


class _Lagrangian:
    """The objective with its multiplier, on the device: to read a number there is to wait for it."""

    def __init__(self, method: Saddle, size: float, device: torch.device) -> None:
        self.method, self.size = method, size
        self.multiplier = torch.zeros((), device=device)
        self.left = torch.ones((), device=device)  # of the direction, smoothed

    def loss(self, step: Step) -> Tensor:
        direction = step.forget.e_cond - step.forget.e_uncond
        left = ((step.e_forget - step.forget.e_uncond) * direction).mean() / self.size
        whole = current().total(step.share * left.detach())  # the multiplier is one for all rows of the batch
        self.left = SMOOTHING * self.left + (1 - SMOOTHING) * whole
        lacking = self.left + self.method.margin
        self.multiplier = (self.multiplier + self.method.ascent * lacking).clamp(0.0, self.method.most)
        return (self.multiplier + self.method.damping * lacking) * left * self.size

    def figures(self) -> dict[str, float]:
        return {"multiplier": self.multiplier.item(), "left": self.left.item()}
