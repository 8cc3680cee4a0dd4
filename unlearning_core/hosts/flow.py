"""What the hosts of diffusers' flow-matching transformers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..names import transformer_name
from .base import DiffusersModel, Text

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class FlowModel(DiffusersModel):
    """x = (1 - sigma) x0 + sigma noise; the transformer predicts the velocity noise - x0."""

    network: ClassVar[str] = "transformer"
    patch_size: ClassVar[int] = 2
    prediction_type = "flow_prediction"
    resolution: ClassVar[int]  # noise levels in ComfyUI's table

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        scheduler = self.pipeline.scheduler
        if self._shift_of(scheduler) is None or scheduler.config.get("invert_sigmas"):
            raise ValueError(
                f"model: scheduler {type(scheduler).__name__} is not set up for flow matching from noise; give the "
                "pipeline a FlowMatchEulerDiscreteScheduler"
            )
        self.check_sigmas()

    @staticmethod
    def may_change(parameter: Tensor) -> bool:
        """Matrices only."""
        return parameter.ndim >= 2  # ComfyUI fuses biases, where LoRA loaders do not reach their parts

    @staticmethod
    def patch_name(name: str) -> str:
        """As diffusers' LoRA files name it."""
        return transformer_name(name)

    @staticmethod
    def _shift_of(scheduler: Any) -> float | None:
        """What the scheduler shifts noise levels by, whichever its class calls it; None when it has no such levels."""
        if scheduler.config.get("use_flow_sigmas"):
            return scheduler.config.flow_shift
        # The property, where there is one, follows `set_shift`.
        return scheduler.shift if hasattr(type(scheduler), "shift") else scheduler.config.get("shift")

    @property
    def training_sigmas(self) -> Tensor:
        """Noise levels of the shift alone, whatever steps the scheduler was set to: [resolution], rising to 1."""
        scheduler = self.pipeline.scheduler
        times = torch.arange(1, self.resolution + 1, device=self.device) / self.resolution
        if scheduler.config.get("use_dynamic_shifting"):
            return scheduler.time_shift(scheduler.config.max_shift, 1.0, times)
        shift: Any = self._shift_of(scheduler)
        return shift * times / (1 + (shift - 1) * times)

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
