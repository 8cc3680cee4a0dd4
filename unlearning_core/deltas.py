"""Trainable changes of frozen weights, full or low rank."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .names import TRANSFORMER, loras_reach


class FullDelta(nn.Module):
    """`weight + diff`, with a diff of the weight's own shape."""

    def __init__(self, weight: Tensor, device: torch.device) -> None:
        super().__init__()
        self.diff = nn.Parameter(torch.zeros(weight.shape, device=device))

    def change(self) -> Tensor:
        """What it adds to the weight."""
        return self.diff

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, of the weight's shape and type."""
        return weight + self.diff.to(weight)

    def train_only(self, mask: Tensor) -> None:
        """Leaves the elements outside the mask, of the weight's shape, as they are."""
        # Adam never moves a parameter whose gradient was always exactly zero.
        self.diff.register_hook(mask.mul)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Under LoRA-file keys."""
        return full_tensors(name, self.diff)


class LowRankDelta(nn.Module):
    """`weight + scale * up @ down` (LoRA, Hu et al. 2021); strength 1 is the trained change."""

    def __init__(
        self, weight: Tensor, rank: int, device: torch.device, generator: torch.Generator, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.mask: Tensor | None = None
        down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, *[1] * (weight.ndim - 2), device=device))

    def change(self) -> Tensor:
        """What it adds to the weight."""
        change = self.scale * low_rank_product(self.up, self.down)
        if self.mask is not None and change.requires_grad:
            change.register_hook(self.mask.mul)
        return change

    def train_only(self, mask: Tensor) -> None:
        """Only the gradient of the masked elements, of the weight's shape, reaches the factors.

        Their product changes elements outside the mask too.
        """
        self.mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, of the weight's shape and type."""
        return weight + self.change().to(weight)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Under LoRA-file keys."""
        return low_rank_tensors(name, self.up, self.down, self.scale)


Delta = FullDelta | LowRankDelta


def low_rank_product(up: Tensor, down: Tensor) -> Tensor:
    """up [out, rank, ...] times down [rank, in, ...], in the shape [out, in, ...] of a linear or convolution weight."""
    return torch.mm(up.flatten(1), down.flatten(1)).reshape(len(up), *down.shape[1:])


def full_tensors(name: str, change: Tensor) -> dict[str, Tensor]:
    """A full change under its LoRA-file key: `<module>.diff` for a weight, `<module>.diff_b` for a bias."""
    module, kind = name.rsplit(".", 1)
    return {f"{module}.{'diff' if kind == 'weight' else 'diff_b'}": change}


def low_rank_tensors(name: str, up: Tensor, down: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
    """The change `scale * low_rank_product(up, down)` of a weight under LoRA-file keys.

    peft's `.lora_B.weight`, with the scale in it, and `.lora_A.weight` for diffusers' transformers, else kohya's
    `.lora_up.weight`, `.lora_down.weight` and `.alpha`.
    """
    module = name.removesuffix(".weight")
    if name.startswith(TRANSFORMER):
        return {f"{module}.lora_B.weight": scale * up, f"{module}.lora_A.weight": down}
    alpha = torch.tensor(scale * len(down))
    return {f"{module}.lora_up.weight": up, f"{module}.lora_down.weight": down, f"{module}.alpha": alpha}


def make_deltas(
    weights: Mapping[str, Tensor], rank: int, seed: int, device: torch.device, scale: float = 1.0
) -> dict[str, Delta]:
    """Zero deltas on `device` for `weights`: full ones for rank 0, else LoRA pairs for `low_rank_part` of them.

    Raises ValueError when rank > 0 and a LoRA can hold none of the weights.
    """
    if rank == 0:
        return {name: FullDelta(weight, device) for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    matrices = low_rank_part(weights)
    if not matrices:
        raise ValueError(f"rank: nothing is left to train; {left_out(weights)}; set rank to 0")
    rank = min(rank, highest_rank(matrices))
    return {name: LowRankDelta(weight, rank, device, generator, scale) for name, weight in matrices.items()}


def low_rank_part(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, or changes of them, that a LoRA can hold: matrices and convolutions that every loader finds."""
    return {name: tensor for name, tensor in tensors.items() if tensor.ndim >= 2 and loras_reach(name)}


def left_out(tensors: Mapping[str, Tensor]) -> str:
    """What is not in `low_rank_part`, and why; empty when all is in it."""
    vectors = sum(tensor.ndim < 2 for tensor in tensors.values())
    lost = [name.removesuffix(".weight") for name, tensor in tensors.items() if tensor.ndim >= 2]
    lost = sorted(layer for layer in lost if not loras_reach(f"{layer}.weight"))
    reasons = [f"{vectors} biases and norms, which have no low rank"] if vectors else []
    reasons += [f"{', '.join(lost)}, which diffusers does not find in LoRA files"] if lost else []
    return f"a LoRA leaves out {'; and '.join(reasons)}" if reasons else ""


def highest_rank(matrices: Mapping[str, Tensor]) -> int:
    """Of any of the matrices; a file's pairs have one rank, because diffusers mixes up the alphas of several."""
    return max(min(len(matrix), matrix[0].numel()) for matrix in matrices.values())
