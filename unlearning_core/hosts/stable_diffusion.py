"""The model interface over Stable Diffusion 1.x, 2.x and XL in diffusers: U-Nets that predict eps or v."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..names import unet_name
from .base import Text
from .discrete import DiscreteModel
from .texts import Window

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class StableDiffusion(DiscreteModel):
    """StableDiffusionPipeline."""

    network: ClassVar[str] = "unet"

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        self.unet = self.denoiser

    @staticmethod
    def may_change(module: nn.Module, parameter: Tensor) -> bool:
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

    def encoded(self, prompts: Sequence[str]) -> list[Text]:
        """CLIP tokens [77, D] of each prompt."""
        tokens, _ = self.pipeline.encode_prompt(list(prompts), self.device, 1, False)
        return [Text(row) for row in tokens.float()]

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Text]) -> Tensor:
        """The denoised latents of x [B, C, H, W] at sigma [B], from the U-Net's eps or v prediction."""
        dtype = next(self.unet.parameters()).dtype
        scaled = (x / (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5).to(dtype)
        tokens = torch.stack([cond.tokens for cond in conds]).to(dtype)
        out = self.unet(scaled, self.timesteps(sigma), tokens, added_cond_kwargs=self.added_conditions(conds, x))
        return self.denoised(x, sigma, out.sample.float())

    def added_conditions(self, conds: Sequence[Text], x: Tensor) -> dict[str, Any] | None:
        """What the U-Net reads beside tokens, for latents x [B, C, H, W]."""
        return None


class StableDiffusionXL(StableDiffusion):
    """StableDiffusionXLPipeline."""

    @property
    def windows(self) -> list[Window]:
        """Both encoders'."""
        return [Window(each, each.model_max_length) for each in (self.pipeline.tokenizer, self.pipeline.tokenizer_2)]

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
