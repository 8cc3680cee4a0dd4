"""Pictures of a model outside ComfyUI: Euler's method with guidance, seed by seed as ComfyUI's KSampler."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..digests import digest
from ..metrics.plan import PromptSeed, pictures_at_once
from ..model import noise_prediction
from ..patch import UnlearningPatch
from ..sampling import Sampling, guided, sample_euler
from .base import DiffusersModel

OnPictures = Callable[[int], object]  # told how many more pictures are drawn


@torch.no_grad()
def draw(
    model: DiffusersModel,
    prompt_seeds: Sequence[PromptSeed],
    sampling: Sampling,
    on_pictures: OnPictures = lambda pictures: None,
) -> Tensor:
    """Pictures [len(prompt_seeds), H, W, 3] in 0..1 on the CPU of (prompt, seed) pairs."""
    size = pictures_at_once(sampling.width, sampling.height)
    drawn = []
    for start in range(0, len(prompt_seeds), size):
        batch = prompt_seeds[start : start + size]
        drawn.append(_draw_batch(model, batch, sampling))
        on_pictures(len(batch))
    return torch.cat(drawn)


def _draw_batch(model: DiffusersModel, prompt_seeds: Sequence[PromptSeed], sampling: Sampling) -> Tensor:
    conds = model.encode([""]) * len(prompt_seeds) + model.encode([prompt for prompt, _ in prompt_seeds])

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        e_uncond, e_cond = noise_prediction(model, torch.cat([x, x]), sigma.expand(len(conds)), conds).chunk(2)
        return guided(e_uncond, e_cond, sampling.cfg)

    x = model.noise([seed for _, seed in prompt_seeds], sampling.width, sampling.height)
    return model.decode(sample_euler(predict, x, model.sigmas(sampling.steps))).cpu()


def device_name(device: torch.device) -> str:
    """What computes there; the same for the same kind of GPU, whatever its number."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class Variant(NamedTuple):
    """The base with a patch on it, or without."""

    patch: UnlearningPatch | None = None
    strength: float = 1.0


class PipelineDrawing:
    """A `Drawing` of a pipeline's model with any patch on it."""

    def __init__(
        self, model: DiffusersModel, sampling: Sampling, on_pictures: OnPictures = lambda pictures: None
    ) -> None:
        self.model = model
        self.sampling = sampling
        self.on_pictures = on_pictures

    def draw(self, variant: Variant, prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        """Pictures [len(prompt_seeds), H, W, 3] in 0..1 on the CPU."""
        if variant.patch is None:
            return draw(self.model, prompt_seeds, self.sampling, self.on_pictures)
        with self.model.patched(variant.patch, variant.strength):
            return draw(self.model, prompt_seeds, self.sampling, self.on_pictures)

    def encode(self, prompt: str) -> Any:
        """The prompt's conditioning, alone in its list."""
        return self.model.encode([prompt])

    def settings(self, variant: Variant) -> Mapping[str, Any]:
        """Sampler, steps, cfg and size, for a report."""
        return self.sampling.settings()

    def identity(self, variant: Variant) -> str:
        """The digest of the base's weights, and of the patch with its strength."""
        if variant.patch is None:
            return self._base_digest
        content = json.dumps([self._base_digest, digest(variant.patch.tensors), variant.strength])
        return hashlib.sha256(content.encode()).hexdigest()

    def vae_digest(self) -> str:
        """Of the VAE's weights."""
        return self._vae_digest

    def surroundings(self, variant: Variant) -> Mapping[str, Any]:
        """What computes, and the configuration of the pipeline's parts."""
        pipeline = self.model.pipeline
        parts = {"denoiser": self.model.denoiser, "VAE": pipeline.vae, "noise schedule": pipeline.scheduler}
        return {
            "device": device_name(self.model.device),
            "configuration": {name: str(sorted(part.config.items())) for name, part in parts.items()},
        }

    @functools.cached_property
    def _base_digest(self) -> str:
        return digest(self.model.denoiser.state_dict())

    @functools.cached_property
    def _vae_digest(self) -> str:
        return digest(self.model.pipeline.vae.state_dict())
