"""What the hosts of diffusers' flow-matching transformers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from .base import Text
from .transformer import TransformerModel

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class FlowModel(TransformerModel):
    """x = (1 - sigma) x0 + sigma noise."""

    prediction_type = "flow_prediction"

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        scheduler = self.pipeline.scheduler
        if self.shift_of(scheduler) is None or scheduler.config.get("invert_sigmas"):
            raise ValueError(
                f"model: scheduler {type(scheduler).__name__} is not set up for flow matching from noise; give the "
                "pipeline a FlowMatchEulerDiscreteScheduler"
            )
        self.check_sigmas()

    @staticmethod
    def shift_of(scheduler: Any) -> float | None:
        """What the scheduler shifts noise levels by, whichever its class calls it; None when it has no such levels."""
        if scheduler.config.get("use_flow_sigmas"):
            return scheduler.config.flow_shift
        # The property, where there is one, follows `set_shift`.
        return scheduler.shift if hasattr(type(scheduler), "shift") else scheduler.config.get("shift")

    @property
    def resolution(self) -> int:
        """Noise levels in ComfyUI's table, which is finer for models whose shift depends on the size."""
        return 10_000 if self.pipeline.scheduler.config.get("use_dynamic_shifting") else 1000

    @property
    def training_sigmas(self) -> Tensor:
        """Noise levels of the shift alone, whatever steps the scheduler was set to: [resolution], rising to 1."""
        scheduler = self.pipeline.scheduler
        times = torch.arange(1, self.resolution + 1, device=self.device) / self.resolution
        if scheduler.config.get("use_dynamic_shifting"):
            return scheduler.time_shift(scheduler.config.max_shift, 1.0, times)
        shift: Any = self.shift_of(scheduler)
        return shift * times / (1 + (shift - 1) * times)

    @property
    def noise_scale(self) -> float:
        """1: at sigma 1 a latent is noise alone."""
        return 1.0

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x [B, C, H, W] at sigma [B] in 0..1 between clean latents x0 and unit noise."""
        s = sigma.view(-1, 1, 1, 1)
        return (1 - s) * x0 + s * noise


class VelocityModel(FlowModel):
    """One whose transformer is called here, and predicts the velocity noise - x0."""

    patch_size: ClassVar[int] = 2

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Text]) -> Tensor:
        """x0 = x - sigma * velocity, for x [B, C, H, W] and sigma [B]."""
        tokens = torch.stack([cond.tokens for cond in conds]).to(self.denoiser.dtype)
        pooled = torch.stack([cond.pooled for cond in conds if cond.pooled is not None]).to(self.denoiser.dtype)
        return x - sigma.view(-1, 1, 1, 1) * self.velocity(x, sigma, tokens, pooled)

    @abstractmethod
    def velocity(self, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The transformer's prediction for x [B, C, H, W], sigma [B], tokens [B, T, D], pooled text [B, P]."""
