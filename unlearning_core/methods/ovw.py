"""OVW, overwrite: under the forget prompt, predict what the base predicts under the overwrite prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..options import option
from .base import HELP, OWN_READING, GradientMethod, Step


@dataclass(frozen=True)
class Ovw(GradientMethod):
    """The OVW objective."""

    label: ClassVar[str] = "OVW (overwrite)"
    summary: ClassVar[str] = "draw what the base draws under the overwrite prompt"
    equation: ClassVar[str] = "||e(x, c_f) - e0(x, c_o)||^2 + help_weight * L_help"
    source: ClassVar[str] = OWN_READING
    weights: ClassVar[str] = "cross_attention_kv"
    guides: ClassVar[tuple[int, ...]] = (0, 1)
    reads: ClassVar[tuple[str, ...]] = ("e_overwrite",)

    help_weight: float = option(5.0, 0.0, 1000.0, HELP)

    def loss(self, step: Step) -> Tensor:
        return F.mse_loss(step.e_forget, step.forget.e_overwrite)
