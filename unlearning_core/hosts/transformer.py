"""What the hosts of diffusers' transformers share."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..names import transformer_name
from .base import DiffusersModel

LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.Embedding)


class TransformerModel(DiffusersModel):
    """A pipeline whose transformer is trained."""

    network: ClassVar[str] = "transformer"

    @staticmethod
    def may_change(module: nn.Module, parameter: Tensor) -> bool:
        """Layers' matrices only."""
        # ComfyUI fuses biases, where LoRA loaders do not reach their parts.
        return isinstance(module, LAYERS) and parameter.ndim >= 2

    @staticmethod
    def patch_name(name: str) -> str:
        """As diffusers' LoRA files name it."""
        return transformer_name(name)
