"""The model interface over Stable Diffusion 3.x in diffusers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import Text
from .flow import VelocityModel
from .texts import Window

T5_TOKENS = 77  # as ComfyUI pads them, and as the model was trained


class StableDiffusion3(VelocityModel):
    """StableDiffusion3Pipeline."""

    resolution = 1000
    may_lack = ("text_encoder_3", "tokenizer_3")

    @property
    def windows(self) -> list[Window]:
        """Both CLIP encoders', and T5's where the pipeline has it."""
        clips = [Window(each, each.model_max_length) for each in (self.pipeline.tokenizer, self.pipeline.tokenizer_2)]
        return clips if self.pipeline.text_encoder_3 is None else [*clips, Window(self.pipeline.tokenizer_3, T5_TOKENS)]

    def encoded(self, prompts: Sequence[str]) -> list[Text]:
        """CLIP and T5 tokens [77 + T5_TOKENS, D] and the pooled text of each prompt."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=T5_TOKENS,
        )
        return [Text(*row) for row in zip(tokens.float(), pooled.float(), strict=True)]

    def velocity(self, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The transformer's prediction; its timestep is 1000 sigma."""
        return self.denoiser(x.to(self.denoiser.dtype), tokens, pooled, 1000 * sigma).sample.float()
