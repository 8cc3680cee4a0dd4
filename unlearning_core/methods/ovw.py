"""OVW, overwrite: under the forget prompt, predict what the base predicts under the overwrite prompt.

    L = ||e(x, c_f) - e0(x, c_o)||^2 + help_weight * L_help

This project's reading of the name in Schioppa, Hoogeboom, Heek, "Model Integrity when Unlearning with T2I Diffusion
Models" (arXiv 2411.02068).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..options import option
from .base import HELP, GradientMethod, Step


@dataclass(frozen=True)
class Ovw(GradientMethod):
    """The OVW objective."""

    label: ClassVar[str] = "OVW (overwrite)"
    weights: ClassVar[str] = "cross_attention_kv"
    guides: ClassVar[tuple[int, ...]] = (0, 1)

    help_weight: float = option(5.0, 0.0, 1000.0, HELP)

    def loss(self, step: Step) -> Tensor:
        return F.mse_loss(step.e_forget, step.forget.e_overwrite)
