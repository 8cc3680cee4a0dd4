"""Trainable changes of frozen weights, full or low rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .names import TRANSFORMER, loras_reach

FUSED = ("cpu", "cuda")  # where one kernel is Adam
PROTECTED_RATE = 20.0  # a change that leaves the retain prompts alone may be larger: docs/methods.md


class Directions(NamedTuple):
    """Ways in which what a layer reads may be told apart, [k, in], orthonormal.

    `share` is how much of the forget prompts' tokens lies along them, 0 to 1, by their squares.
    """

    free: Tensor
    share: float


UNPROTECTED: Mapping[str, Directions] = MappingProxyType({})


class Delta(nn.Module, ABC):
    """A trainable change of one weight."""

    rate: ClassVar[float] = 1.0  # of the learning rate

    @abstractmethod
    def change(self) -> Tensor:
        """What it adds to the weight."""

    @abstractmethod
    def undo(self) -> None:
        """Makes the change zero."""

    @abstractmethod
    def train_only(self, mask: Tensor) -> None:
        """Lets only the gradient of the elements in the mask, of the weight's shape, train it."""

    @abstractmethod
    def tensors(self, name: str) -> dict[str, Tensor]:
        """Under LoRA-file keys."""

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, of the weight's shape and type."""
        return weight + self.change().to(weight)


class FullDelta(Delta):
    """`weight + diff`, with a diff of the weight's own shape."""

    def __init__(self, weight: Tensor, device: torch.device) -> None:
        super().__init__()
        self.diff = nn.Parameter(torch.zeros(weight.shape, device=device))

    def change(self) -> Tensor:
        return self.diff

    @torch.no_grad()
    def undo(self) -> None:
        self.diff.zero_()

    def train_only(self, mask: Tensor) -> None:
        """Leaves the elements outside the mask as they are."""
        # Adam never moves a parameter whose gradient was always exactly zero.
        self.diff.register_hook(mask.mul)

    def tensors(self, name: str) -> dict[str, Tensor]:
        return full_tensors(name, self.diff)


class FactoredDelta(Delta):
    """`weight + scale * up @ down`, of which a subclass trains `up`, or both."""

    up: nn.Parameter

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.mask: Tensor | None = None

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """up [out, rank, ...] and down [rank, in, ...]."""

    def change(self) -> Tensor:
        change = self.scale * low_rank_product(*self.factors())
        if self.mask is not None and change.requires_grad:
            change.register_hook(self.mask.mul)
        return change

    @torch.no_grad()
    def undo(self) -> None:
        """Leaves `down` as it is."""
        self.up.zero_()

    def train_only(self, mask: Tensor) -> None:
        """The product of the factors changes elements outside the mask too."""
        self.mask = mask


class LowRankDelta(FactoredDelta):
    """LoRA (Hu et al. 2021): both factors train, from a change of zero; strength 1 is the trained change."""

    def __init__(
        self, weight: Tensor, rank: int, device: torch.device, generator: torch.Generator, scale: float = 1.0
    ) -> None:
        super().__init__(scale)
        down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, *[1] * (weight.ndim - 2), device=device))

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.up, self.down

    def tensors(self, name: str) -> dict[str, Tensor]:
        return low_rank_tensors(name, *self.factors(), self.scale)


class ProtectedDelta(FactoredDelta):
    """A full change along some directions of what a layer reads; along all others the layer stays as it was."""

    rate: ClassVar[float] = PROTECTED_RATE

    def __init__(self, weight: Tensor, directions: Directions) -> None:
        super().__init__()
        self.directions = directions
        free = directions.free
        self.up = nn.Parameter(free.new_zeros(weight.shape[0], len(free), *[1] * (weight.ndim - 2)))
        self.down = free.reshape(len(free), *weight.shape[1:])

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.up, self.down

    def tensors(self, name: str) -> dict[str, Tensor]:
        return full_tensors(name, self.change())


class ProtectedLowRankDelta(LowRankDelta):
    """A LoRA along some directions of what a layer reads."""

    rate: ClassVar[float] = PROTECTED_RATE

    def __init__(
        self, weight: Tensor, rank: int, directions: Directions, generator: torch.Generator, scale: float = 1.0
    ) -> None:
        super().__init__(weight, rank, directions.free.device, generator, scale)
        self.directions = directions

    def factors(self) -> tuple[Tensor, Tensor]:
        free = self.directions.free
        return self.up, (self.down.flatten(1) @ free.T @ free).reshape(self.down.shape)


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
    weights: Mapping[str, Tensor],
    rank: int,
    seed: int,
    device: torch.device,
    scale: float = 1.0,
    protected: Mapping[str, Directions] = UNPROTECTED,
) -> dict[str, Delta]:
    """Zero deltas on `device` for `weights`: full ones for rank 0, else LoRA pairs for `low_rank_part` of them.

    Those of `protected` weights keep to their directions. Raises ValueError when rank > 0 and a LoRA can hold none of
    the weights.
    """
    if rank == 0:
        return {
            name: ProtectedDelta(weight, protected[name]) if name in protected else FullDelta(weight, device)
            for name, weight in weights.items()
        }
    generator = torch.Generator().manual_seed(seed)
    matrices = low_rank_part(weights)
    if not matrices:
        raise ValueError(f"rank: nothing is left to train; {left_out(weights)}; set rank to 0")
    rank = min(rank, highest_rank(matrices))
    return {
        name: ProtectedLowRankDelta(weight, rank, protected[name], generator, scale)
        if name in protected
        else LowRankDelta(weight, rank, device, generator, scale)
        for name, weight in matrices.items()
    }


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
