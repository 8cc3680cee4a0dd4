"""Trainable changes of frozen weights, full or low rank."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

PEFT = "transformer."  # diffusers reads names with this prefix in peft's style only, without alpha


class FullDelta(nn.Module):
    """`weight + diff`, with a diff of the weight's own shape."""

    def __init__(self, weight: Tensor, device: torch.device) -> None:
        super().__init__()
        self.diff = nn.Parameter(torch.zeros(weight.shape, device=device))

    def change(self) -> Tensor:
        """What it adds to the weight."""
        return self.diff

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.diff.to(weight)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Under LoRA-file keys."""
        return full_tensors(name, self.diff)


class LowRankDelta(nn.Module):
    """`weight + up @ down` (LoRA, Hu et al. 2021) with alpha equal to the rank, so strength 1 is the trained change."""

    def __init__(self, weight: Tensor, rank: int, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, *[1] * (weight.ndim - 2), device=device))

    def change(self) -> Tensor:
        """What it adds to the weight."""
        return low_rank_product(self.up, self.down)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.change().to(weight)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Under LoRA-file keys."""
        return low_rank_tensors(name, self.up, self.down)


Delta = FullDelta | LowRankDelta


def low_rank_product(up: Tensor, down: Tensor) -> Tensor:
    """up [out, rank, ...] times down [rank, in, ...], in the shape [out, in, ...] of a linear or convolution weight."""
    return torch.mm(up.flatten(1), down.flatten(1)).reshape(len(up), *down.shape[1:])


def full_tensors(name: str, change: Tensor) -> dict[str, Tensor]:
    """A full change under its LoRA-file key: `<module>.diff` for a weight, `<module>.diff_b` for a bias."""
    module, kind = name.rsplit(".", 1)
    return {f"{module}.{'diff' if kind == 'weight' else 'diff_b'}": change}


def low_rank_tensors(name: str, up: Tensor, down: Tensor) -> dict[str, Tensor]:
    """The change `low_rank_product(up, down)` of a weight under LoRA-file keys.

    peft's `.lora_B.weight` and `.lora_A.weight` for diffusers' transformers, else kohya's `.lora_up.weight`,
    `.lora_down.weight` and `.alpha`.
    """
    module = name.removesuffix(".weight")
    if name.startswith(PEFT):
        return {f"{module}.lora_B.weight": up, f"{module}.lora_A.weight": down}
    alpha = torch.tensor(float(len(down)))
    return {f"{module}.lora_up.weight": up, f"{module}.lora_down.weight": down, f"{module}.alpha": alpha}


def make_deltas(weights: Mapping[str, Tensor], rank: int, seed: int, device: torch.device) -> dict[str, Delta]:
    """Zero deltas on `device` for `weights`: full ones for rank 0, else LoRA pairs for those that are matrices.

    Raises ValueError when rank > 0 and none of the weights is a matrix.
    """
    if rank == 0:
        return {name: FullDelta(weight, device) for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    matrices = {name: weight for name, weight in weights.items() if weight.ndim >= 2}
    if not matrices:
        raise ValueError("rank: the selected weights are all vectors, which have no low rank; set rank to 0")
    return {
        name: LowRankDelta(weight, min(rank, weight.shape[0], weight[0].numel()), device, generator)
        for name, weight in matrices.items()
    }
