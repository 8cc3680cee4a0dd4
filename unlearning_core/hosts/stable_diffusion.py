"""The model interface over Stable Diffusion 1.x, 2.x and XL in diffusers: U-Nets that predict eps or v."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..names import unet_name
from .base import DiffusersModel, Text
from .texts import Window

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ZERO_SNR = 4.8973451890853435e-08  # ComfyUI's last alphas_cumprod where it should be 0 (Lin et al. 2024)


class StableDiffusion(DiffusersModel):
    """StableDiffusionPipeline."""

    network: ClassVar[str] = "unet"

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        self.unet = self.denoiser
        scheduler = self.pipeline.scheduler
        if not hasattr(scheduler, "alphas_cumprod"):
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

    @staticmethod
    def may_change(parameter: Tensor) -> bool:
        """Every parameter."""
        return True

    @staticmethod
    def patch_name(name: str) -> str:
        """kohya's name."""
        return unet_name(name)

    @property
    def windows(self) -> list[Window]:
        """CLIP's."""
        return [Window(self.pipeline.tokenizer, self.pipeline.tokenizer.model_max_length)]

    @torch.no_grad()
    def encoded(self, prompts: Sequence[str]) -> list[Text]:
        """CLIP tokens [77, D] of each prompt."""
        tokens, _ = self.pipeline.encode_prompt(list(prompts), self.device, 1, False)
        return [Text(row) for row in tokens.float()]

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

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Text]) -> Tensor:
        """The denoised latents of x [B, C, H, W] at sigma [B], from the U-Net's eps or v prediction."""
        # As in k-diffusion's DiscreteEpsDDPMDenoiser: the nearest trained timestep in log sigma.
        distance = (sigma.log()[:, None] - self.training_sigmas.log()[None]).abs()  # [B, timesteps]
        s = sigma.view(-1, 1, 1, 1)
        scaled = (x / (s**2 + 1) ** 0.5).to(self.unet.dtype)
        tokens = torch.stack([cond.tokens for cond in conds]).to(self.unet.dtype)
        out = self.unet(scaled, distance.argmin(dim=1), tokens, added_cond_kwargs=self.added_conditions(conds, x))
        if self.prediction_type == "epsilon":
            return x - s * out.sample.float()
        return x / (s**2 + 1) - out.sample.float() * s / (s**2 + 1) ** 0.5

    def added_conditions(self, conds: Sequence[Text], x: Tensor) -> dict[str, Any] | None:
        """What the U-Net reads beside tokens, for latents x [B, C, H, W]."""
        return None

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x0 + sigma * noise, for latents [B, C, H, W] and sigma [B]."""
        return x0 + sigma.view(-1, 1, 1, 1) * noise


class StableDiffusionXL(StableDiffusion):
    """StableDiffusionXLPipeline."""

    @property
    def windows(self) -> list[Window]:
        """Both encoders'."""
        return [Window(each, each.model_max_length) for each in (self.pipeline.tokenizer, self.pipeline.tokenizer_2)]

    @torch.no_grad()
    def encoded(self, prompts: Sequence[str]) -> list[Text]:
        """Tokens [77, D] of both encoders side by side, and the pooled text of each prompt."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        return [Text(*row) for row in zip(tokens.float(), pooled.float(), strict=True)]

    def added_conditions(self, conds: Sequence[Text], x: Tensor) -> dict[str, Any]:
        """The pooled text, and size embeddings of uncropped pictures of x's own size."""
        height, width = (side * self.downscale for side in x.shape[2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=x.device, dtype=self.unet.dtype)
        pooled = torch.stack([cond.pooled for cond in conds if cond.pooled is not None])
        return {"text_embeds": pooled.to(self.unet.dtype), "time_ids": sizes.expand(len(conds), -1)}
