"""Null-space edit: as UCE, in the directions that no retain token has, so that what they give stays exactly.

The paper's filtering and augmentation of the retain set are not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..options import option
from .base import ClosedForm, TextSums, solve_positive


@dataclass(frozen=True)
class NullSpace(ClosedForm):
    """How much of the space counts as empty."""

    label: ClassVar[str] = "Null space (closed form)"
    summary: ClassVar[str] = "as uce, without touching what the retain prompts use"
    equation: ClassVar[str] = (
        "W* = W + sum (v* - W c) c^T N (N^T (sum c c^T) N + ridge * I)^-1 N^T, v* = W c_o\n"
        "over forget tokens c; N: eigenvectors of the retain tokens' Gram matrix whose singular values are below\n"
        "tolerance times the largest"
    )
    source: ClassVar[str] = (
        'the idea of Li and others, "SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models" '
        "(arXiv 2503.07392)"
    )
    weights: ClassVar[str] = "text_projections"

    tolerance: float = option(1e-6, 1e-7, 1.0, "relative size up to which retain tokens count as zero", step=1e-6)
    ridge: float = option(1e-3, 1e-12, 1e6, "weight of staying near the base's weights", step=1e-3)

    def map(self, sums: TextSums) -> Tensor:
        squares, directions = torch.linalg.eigh(sums.retain)
        empty = directions[:, squares <= self.tolerance**2 * squares[-1]]
        if not empty.shape[1]:
            raise ValueError(
                f"retain prompts: their tokens fill all {len(squares)} directions of the text, so a null-space edit "
                "has none left; use fewer retain prompts, or raise tolerance"
            )
        inverted = empty.T @ sums.forget @ empty
        inverted.diagonal().add_(self.ridge)
        return solve_positive(inverted, sums.moved @ empty) @ empty.T
