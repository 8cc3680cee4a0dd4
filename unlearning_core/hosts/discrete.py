"""What the hosts of diffusers' models of discrete diffusion share, which predict eps or v."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .base import DiffusersModel

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ZERO_SNR = 4.8973451890853435e-08  # ComfyUI's last alphas_cumprod where it should be 0 (Lin et al. 2024)


class DiscreteModel(DiffusersModel):
    """x = x0 + sigma noise; the network sees x / sqrt(sigma^2 + 1) at a trained timestep."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        scheduler = self.pipeline.scheduler
        if not len(getattr(scheduler, "alphas_cumprod", ())):
            raise ValueError(
                f"model: scheduler {type(scheduler).__name__} has no alphas_cumprod; give the pipeline one of discrete "
                "diffusion, such as DDIMScheduler"
            )
        self.prediction_type = scheduler.config.get("prediction_type")
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"model: prediction type {self.prediction_type!r} is not supported; use epsilon or v_prediction"
            )
        self.check_sigmas()

    @property
    def training_sigmas(self) -> Tensor:
        """sigma = sqrt((1 - alphas_cumprod) / alphas_cumprod) of the trained timesteps, rising and finite."""
        scheduler = self.pipeline.scheduler
        alphas_cumprod = scheduler.alphas_cumprod.to(self.device, torch.float32, copy=True)
        if scheduler.config.get("rescale_betas_zero_snr") or alphas_cumprod[-1] == 0:
            alphas_cumprod[-1] = ZERO_SNR
        return ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5

    @property
    def noise_scale(self) -> float:
        """sqrt(sigma_max^2 + 1), as ComfyUI scales the first latent."""
        return float((self.training_sigmas[-1] ** 2 + 1) ** 0.5)

    def timesteps(self, sigma: Tensor) -> Tensor:
        """The trained timesteps nearest to sigma [B] in log sigma, as in k-diffusion's DiscreteEpsDDPMDenoiser."""
        return (sigma.log()[:, None] - self.training_sigmas.log()[None]).abs().argmin(dim=1)

    def denoised(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        """x0 of x [B, C, H, W] at sigma [B] from the network's eps or v of x / sqrt(sigma^2 + 1)."""
        s = sigma.view(-1, 1, 1, 1)
        if self.prediction_type == "epsilon":
            return x - s * output
        return x / (s**2 + 1) - output * s / (s**2 + 1) ** 0.5

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x0 + sigma * noise, for latents [B, C, H, W] and sigma [B]."""
        return x0 + sigma.view(-1, 1, 1, 1) * noise
