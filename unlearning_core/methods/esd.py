"""ESD: under the forget prompt, predict away from what the base predicts under it.

Its variants are weights to train: ESD-x is cross_attention, ESD-x-strict cross_attention_kv, ESD-u
not_cross_attention, ESD-all all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..options import option
from .base import GradientMethod, Step


@dataclass(frozen=True)
class Esd(GradientMethod):
    """The ESD objective."""

    label: ClassVar[str] = "ESD (erase)"
    summary: ClassVar[str] = "move away from what the base draws, to the empty prompt and beyond"
    equation: ClassVar[str] = '||e(x, c_f) - [e0(x, "") - eta * (e0(x, c_f) - e0(x, ""))]||^2'
    source: ClassVar[str] = (
        'Gandikota, Materzynska, Fiotto-Kaufman, Bau, "Erasing Concepts from Diffusion Models" (arXiv 2303.07345), '
        "equation 6"
    )
    uses_overwrite: ClassVar[bool] = False
    weights: ClassVar[str] = "cross_attention"
    reads: ClassVar[tuple[str, ...]] = ("e_cond", "e_uncond")

    eta: float = option(1.0, 0.0, 10.0, "how far to push away from the concept; 0 maps it to the empty prompt")

    def loss(self, step: Step) -> Tensor:
        e_cond, e_uncond = step.forget.e_cond, step.forget.e_uncond
        return F.mse_loss(step.e_forget, e_uncond - self.eta * (e_cond - e_uncond))
