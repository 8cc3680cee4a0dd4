"""How far apart two sets of pictures are as a whole: the Fréchet distance of their features."""

from __future__ import annotations

import torch
from torch import Tensor

from .lpips import Lpips
from .plan import batches


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features [N, D] and [M, D]; 0 for equal ones.

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)), as in Heusel et al. 2017 (arXiv 1706.08500), equation 6, in fp64. With
    centred features A and B, so that C1 = A^T A, the last trace is the nuclear norm of A B^T: no matrix root is needed,
    nor more vectors than dimensions. Raises ValueError for fewer than two vectors, different D, or NaN.
    """
    for features in (first, second):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"a Fréchet distance needs features [N, D] of at least 2 pictures, got {[*features.shape]}"
            )
        if not features.isfinite().all():
            raise ValueError("a Fréchet distance needs finite features; a picture gave NaN or infinity")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"the two sets have features of different length: {first.shape[1]} and {second.shape[1]}")
    (mean1, root1), (mean2, root2) = _moments(first), _moments(second)
    shared = torch.linalg.matrix_norm(root1 @ root2.T, "nuc")
    distance = (mean1 - mean2).square().sum() + root1.square().sum() + root2.square().sum() - 2 * shared
    return max(0.0, distance.item())


def alexnet_features(alexnet: Lpips, pictures: Tensor) -> Tensor:
    """AlexNet's fifth convolution, averaged over the picture: [B, H, W, 3] in 0..1 -> [B, 256] on the CPU.

    Raises as `Lpips.activations` does, and ValueError for another backbone.
    """
    if alexnet.backbone != "alex":
        raise ValueError(f"AlexNet's features come from the backbone alex, not {alexnet.backbone}")
    return torch.cat([alexnet.activations(batch)[-1].mean((2, 3)).cpu() for batch in batches(pictures)])


def alexnet_frechet_distance(alexnet: Lpips, first: Tensor, second: Tensor) -> float:
    """Fréchet distance of two sets of pictures [B, H, W, 3] in 0..1 on AlexNet's features.

    It needs no Inception weights, and is not FID: compare it with itself only. Raises as the two functions it joins.
    """
    return frechet_distance(alexnet_features(alexnet, first), alexnet_features(alexnet, second))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [D], and a matrix R [min(N, D), D] such that R^T R is the covariance."""
    values = features.double().cpu()
    mean = values.mean(0)
    centred = (values - mean) / (len(values) - 1) ** 0.5
    return mean, torch.linalg.qr(centred, mode="r").R if len(values) > values.shape[1] else centred
