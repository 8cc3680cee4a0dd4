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

from ..bank import Batch
from .base import Options, option


@dataclass(frozen=True)
class OvwOptions(Options):
    """Options of OVW."""

    help_weight: float = option(3.0, 0.0, 1000.0, "weight of L_help, which holds the retain prompts; 0 switches it off")


class Ovw:
    """The OVW objective."""

    label: ClassVar[str] = "OVW (overwrite)"
    options_type: ClassVar[type[Options]] = OvwOptions
    weights: ClassVar[str] = "cross_attention_kv"
    follows_overwrite: ClassVar[bool] = True

    def __init__(self, options: OvwOptions) -> None:
        self.options = options

    def forget_loss(self, e: Tensor, forget: Batch) -> Tensor:
        return F.mse_loss(e, forget.e_overwrite)
