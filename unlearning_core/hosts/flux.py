"""The model interface over FLUX.1 in diffusers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Text
from .flow import VelocityModel
from .texts import Window

GUIDANCE = 3.5  # ComfyUI's value when no node sets another
T5_TOKENS = 256  # as ComfyUI pads them at least


class Flux(VelocityModel):
    """FluxPipeline."""

    resolution = 10_000

    @property
    def windows(self) -> list[Window]:
        """T5's. Of CLIP the network sees the pooled text alone, which is the first 77 tokens' in ComfyUI too."""
        return [Window(self.pipeline.tokenizer_2, T5_TOKENS)]

    def encoded(self, prompts: Sequence[str]) -> list[Text]:
        """T5 tokens [T5_TOKENS, D] and CLIP's pooled text of each prompt."""
        tokens, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, device=self.device, max_sequence_length=T5_TOKENS
        )
        return [Text(*row) for row in zip(tokens.float(), pooled.float(), strict=True)]

    @property
    def channels(self) -> int:
        """Of a latent, which the transformer sees in patches of 2 x 2."""
        return self.denoiser.config.in_channels // 4

    def velocity(self, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The transformer's prediction, on packed latents at guidance GUIDANCE where the model has such an input."""
        dtype = self.denoiser.dtype
        batch, channels, height, width = x.shape
        packed = self.pipeline._pack_latents(x.to(dtype), batch, channels, height, width)
        places = self.pipeline._prepare_latent_image_ids(batch, height // 2, width // 2, x.device, dtype)
        guidance = torch.full((batch,), GUIDANCE, device=x.device) if self.denoiser.config.guidance_embeds else None
        out = self.denoiser(
            hidden_states=packed,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            timestep=sigma,
            img_ids=places,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=x.device, dtype=dtype),
            guidance=guidance,
        ).sample
        pixels = self.downscale * height, self.downscale * width
        return self.pipeline._unpack_latents(out, *pixels, self.downscale).float()
