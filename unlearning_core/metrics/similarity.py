"""How alike two pictures are, by measures that readers know besides LPIPS; SSIM and PSNR are torchmetrics'."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .plan import batches


class Similarity(NamedTuple):
    """A measure of picture pairs, and how its mean over the retain pictures is shown."""

    key: str  # in JSON and CSV
    heading: str
    format: str  # of str.format
    higher_is_better: bool
    of: Callable[[Tensor, Tensor], list[float]]  # of two [B, H, W, 3] in 0..1, a value for each pair


def ssim(a: Tensor, b: Tensor) -> list[float]:
    """Structural similarity (Wang et al. 2004) of each pair of pictures [B, H, W, 3] in 0..1: 1 is the same."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = []
    for first, second in zip(batches(a), batches(b), strict=True):
        part = structural_similarity_index_measure(_planes(first), _planes(second), data_range=1.0, reduction="none")
        values += torch.as_tensor(part).reshape(-1).tolist()
    return values


def psnr(a: Tensor, b: Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each pair of pictures [B, H, W, 3] in 0..1: infinite is the same."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3)).tolist()


def _planes(pictures: Tensor) -> Tensor:
    """[B, H, W, 3] -> [B, 3, H, W]."""
    return pictures.permute(0, 3, 1, 2)


# Every one is measured on every pair of pictures, and its mean is a figure of the reports.
SIMILARITIES = (
    Similarity("ssim", "mean SSIM", "{:.3f}", True, ssim),
    Similarity("psnr", "mean PSNR", "{:.1f} dB", True, psnr),
)
