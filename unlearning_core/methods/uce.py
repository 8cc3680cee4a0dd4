"""UCE, unified concept editing: each text projection maps the forget tokens where it mapped the overwrite tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..options import option
from .base import ClosedForm, TextSums, solve_positive


@dataclass(frozen=True)
class Uce(ClosedForm):
    """The UCE equation's weights."""

    label: ClassVar[str] = "UCE (closed form)"
    summary: ClassVar[str] = "map the text where the overwrite prompt goes: seconds, no training"
    equation: ClassVar[str] = (
        "W* = (ridge * W + sum v* c^T) (ridge * I + sum c c^T)^-1\n"
        "over forget tokens c with v* = W c_o, and over retain tokens with v* = W c, times retain_weight"
    )
    source: ClassVar[str] = (
        'Gandikota, Orgad, Belinkov, Materzynska, Bau, "Unified Concept Editing in Diffusion Models" (arXiv 2308.14761)'
    )
    weights: ClassVar[str] = "text_projections"

    ridge: float = option(0.5, 1e-6, 1e6, "weight of staying near the base's weights")
    retain_weight: float = option(1.0, 0.0, 1e6, "weight of the retain prompts' tokens against the forget prompts'")

    def map(self, sums: TextSums) -> Tensor:
        inverted = sums.forget + self.retain_weight * sums.retain
        inverted.diagonal().add_(self.ridge)
        return solve_positive(inverted, sums.moved)  # W* - W = (sum (v* - W c) c^T) (...)^-1, v* = W c_o
