"""What the hosts of diffusers' flow-matching transformers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..names import transformer_name
from .base import DiffusersModel, Text


class FlowModel(DiffusersModel):
    """x = (1 - sigma) x0 + sigma noise; the transformer predicts the velocity noise - x0."""

    network: ClassVar[str] = "transformer"
    patch_size: ClassVar[int] = 2
    prediction_type = "flow_prediction"

    @staticmethod
    def may_change(parameter: Tensor) -> bool:
        """Matrices only."""
        return parameter.ndim >= 2  # ComfyUI fuses biases, where LoRA loaders do not reach their parts

    @staticmethod
    def patch_name(name: str) -> str:
        """As diffusers' LoRA files name it."""
        return transformer_name(name)

    @property
    def noise_scale(self) -> float:
        """1: at sigma 1 a latent is noise alone."""
        return 1.0

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x [B, C, H, W] at sigma [B] in 0..1 between clean latents x0 and unit noise."""
        s = sigma.view(-1, 1, 1, 1)
        return (1 - s) * x0 + s * noise

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Text]) -> Tensor:
        """x0 = x - sigma * velocity, for x [B, C, H, W] and sigma [B]."""
        tokens = torch.stack([cond.tokens for cond in conds]).to(self.denoiser.dtype)
        pooled = torch.stack([cond.pooled for cond in conds if cond.pooled is not None]).to(self.denoiser.dtype)
        return x - sigma.view(-1, 1, 1, 1) * self.velocity(x, sigma, tokens, pooled)

    @abstractmethod
    def velocity(self, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The transformer's prediction for x [B, C, H, W], sigma [B], tokens [B, T, D], pooled text [B, P]."""
