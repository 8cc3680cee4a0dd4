"""From a picture of the concept, under more and more noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..options import series
from .base import Attack, Attacked, Task


@dataclass(frozen=True)
class Img2Img(Attack):
    """Starts from the base's pictures of the concept, noised to a strength, and denoises under the forget prompts."""

    label = "Image to image"
    summary = "starts from the base's pictures of the concept, noised, and denoises under the forget prompts"
    source = 'Meng et al., "SDEdit" (arXiv 2108.01073)'
    reading = (
        "at a low strength the start shows the concept whatever the model knows, as the reversed one does; what "
        "exceeds that column comes from the model"
    )

    strengths: tuple[float, ...] = series((0.3, 0.5, 0.7, 0.9), 0.01, 1.0, "share of the steps that is denoised")

    def settings(self, task: Task) -> list[str]:
        """The strengths."""
        return [f"strength {strength:g}" for strength in self.strengths]

    def run(self, attacked: Attacked) -> None:
        """Shows each on all of the base's pictures of the concept."""
        model, sampling, concept = attacked.model, attacked.task.sampling, attacked.scene.concept
        assert concept.latents is not None
        x0 = concept.latents.to(model.device)
        noise = torch.randn(x0.shape, generator=attacked.generator()).to(x0)
        conds = model.encode([item.prompt for item in concept.items])
        for setting, strength in zip(self.settings(attacked.task), self.strengths, strict=True):
            sigmas = model.sigmas(sampling.steps)[-1 - max(1, round(strength * sampling.steps)) :]
            x = model.noised(x0, noise, sigmas[0].expand(len(x0)))
            attacked.show(setting, attacked.denoised(x, sigmas, conds, sampling.cfg))
