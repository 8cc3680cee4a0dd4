"""Saddle: hold the retain prompts under the constraint that the concept's own direction leaves the prediction.

Gradient descent on the weights, ascent on the multiplier m. What is left of the direction is relative to the base, so
one margin suits all models. A constraint on how far the prediction moves, wherever to, forgets less at a higher cost.
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

SMOOTHING = 0.8  # of s over steps: a few latents at random sigmas say little about the constraint


@dataclass(frozen=True)
class Saddle(GradientMethod):
    """The Lagrangian's options."""

    label: ClassVar[str] = "Saddle (constrained)"
    summary: ClassVar[str] = "leave the concept's own direction, held back by the retain prompts"
    equation: ClassVar[str] = (
        "min over the weights, max over m >= 0: help_weight * L_help + m * (s + margin) * G, G the mean of ||g||^2\n"
        's = <e(x, c_f) - e0(x, ""), g> / ||g||^2, g = e0(x, c_f) - e0(x, ""): 1 in the base, 0 without the concept'
    )
    source: ClassVar[str] = OWN_READING
    uses_overwrite: ClassVar[bool] = False
    in_parts: ClassVar[bool] = False  # the multiplier weighs each latent by what the whole batch leaves
    weights: ClassVar[str] = "cross_attention_kv"
    reads: ClassVar[tuple[str, ...]] = ("e_cond", "e_uncond")

    help_weight: float = option(20.0, 0.0, 1000.0, HELP)
    margin: float = option(0.0, 0.0, 4.0, "how far to go past the prediction without the concept, in lengths of g")
    ascent: float = option(0.03, 0.001, 10.0, "step size of the multiplier", step=0.01)
    damping: float = option(5.0, 0.0, 100.0, "how strongly to pull back what went too far")
    most: float = option(10.0, 0.1, 1000.0, "upper bound of the multiplier")

    def begin(self, training: Training) -> Objective:
        forget = training.bank.forget
        energy = F.mse_loss(forget.e_cond, forget.e_uncond).item()
        return _Lagrangian(self, energy, training.model.device)


class _Lagrangian:
    """The objective with its multiplier, on the device: to read a number there is to wait for it."""

    def __init__(self, method: Saddle, energy: float, device: torch.device) -> None:
        self.method, self.energy = method, energy  # G, so that one help_weight suits all models
        self.multiplier = torch.zeros((), device=device)
        self.left = torch.ones((), device=device)  # s, smoothed

    def loss(self, step: Step) -> Tensor:
        e_uncond = step.forget.e_uncond
        g = step.forget.e_cond - e_uncond
        # Latent by latent: at high sigmas, where a picture's content is decided, g is small in units of noise.
        left = (((step.e_forget - e_uncond) * g).flatten(1).mean(1) / g.square().flatten(1).mean(1)).mean()
        whole = current().total(step.share * left.detach())  # the multiplier is one for all rows of the batch
        self.left = SMOOTHING * self.left + (1 - SMOOTHING) * whole
        lacking = self.left + self.method.margin
        self.multiplier = (self.multiplier + self.method.ascent * lacking).clamp(0.0, self.method.most)
        return (self.multiplier + self.method.damping * lacking) * (left + self.method.margin) * self.energy

    def figures(self) -> dict[str, float]:
        return {"multiplier": self.multiplier.item(), "s": self.left.item()}
