"""SSIM and PSNR through torchmetrics, beside LPIPS because readers know them."""

from __future__ import annotations

import torch
from torch import Tensor

from .drawing import batches


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
    return pictures.permute(0, 3, 1, 2)
