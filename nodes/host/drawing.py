"""Pictures of a MODEL for (prompt, seed) pairs, the same ones that KSampler makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import comfy.sample
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...unlearning_core.digests import digest
from ...unlearning_core.metrics.cache import PictureCache
from ...unlearning_core.metrics.plan import PromptSeed, check_measurable, pictures_at_once
from ...unlearning_core.probes import FAILURES, one_line
from .calls import caches_emptied
from .conditioning import encode_prompt
from .identity import model_identity
from .model import empty_latent
from .progress import Interruptible

# Samplers that draw no noise on the way. The others draw it for the whole batch, so their pictures go one by one.
BATCHED = {"euler", "euler_cfg_pp", "heun", "heunpp2", "dpm_2", "lms", "dpmpp_2m", "ddim", "ipndm", "deis", "uni_pc"}


@dataclass(frozen=True)
class KSamplerSettings:
    """How pictures are drawn, in KSampler's words; size in pixels."""

    sampler_name: str
    scheduler: str
    steps: int
    cfg: float
    width: int
    height: int


@dataclass(frozen=True)
class ComfyDrawing:
    """A `Drawing` of the library with MODELs that share a CLIP and a VAE."""

    clip: CLIP
    vae: VAE
    sampling: KSamplerSettings
    on_step: Callable[[int], None]  # told after each sampling step for how many pictures it was
    encoded: dict[str, Any] = field(default_factory=dict)
    identities: dict[ModelPatcher, str] = field(default_factory=dict)

    def draw(self, model: ModelPatcher, prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        """Pictures [len(prompt_seeds), H, W, 3] in 0..1 on the CPU."""
        return torch.cat([self._draw_batch(model, batch) for batch in self._batches(prompt_seeds)])

    def encode(self, prompt: str) -> Any:
        """ComfyUI's conditioning for a prompt, encoded once."""
        if prompt not in self.encoded:
            self.encoded[prompt] = encode_prompt(self.clip, prompt)
        return self.encoded[prompt]

    def settings(self, model: ModelPatcher) -> Mapping[str, Any]:
        """Model, sampler, size and precision, for a report."""
        return {
            "model": type(model.model.model_config).__name__,
            "sampler": self.sampling.sampler_name,
            "scheduler": self.sampling.scheduler,
            "steps": self.sampling.steps,
            "cfg": self.sampling.cfg,
            "size": f"{self.sampling.width}x{self.sampling.height}",
            "precision": str(model.model.get_dtype_inference()).removeprefix("torch."),
        }

    def identity(self, model: ModelPatcher) -> str:
        """The digest of the weights, and of everything on the MODEL that changes its pictures."""
        if model not in self.identities:
            self.identities[model] = model_identity(model)
        return self.identities[model]

    def vae_digest(self) -> str:
        """Of the VAE's weights."""
        return digest(Interruptible(self.vae.first_stage_model.state_dict()))

    def surroundings(self, model: ModelPatcher) -> Mapping[str, Any]:
        """The device."""
        return {"device": str(model.load_device)}

    def check_size(self, model: ModelPatcher, smallest: int) -> None:
        """Raises ValueError for a picture size that `model` cannot draw, or below the `smallest` side in pixels."""
        ratio = model.get_model_object("latent_format").spacial_downscale_ratio
        check_measurable(self.sampling.width, self.sampling.height, ratio, smallest)

    def _batches(self, prompt_seeds: Sequence[PromptSeed]) -> Iterator[list[PromptSeed]]:
        """Runs of pictures that can share a sampling run."""
        for shape, group in groupby(prompt_seeds, key=lambda picture: batch_shape(self.encode(picture[0]))):
            same = list(group)
            together = shape is not None and self.sampling.sampler_name in BATCHED
            size = pictures_at_once(self.sampling.width, self.sampling.height) if together else 1
            yield from (same[start : start + size] for start in range(0, len(same), size))

    def _draw_batch(self, model: ModelPatcher, prompt_seeds: list[PromptSeed]) -> Tensor:
        latent = empty_latent(model, self.sampling.width, self.sampling.height)
        noise = torch.cat([comfy.sample.prepare_noise(latent, seed) for _, seed in prompt_seeds])
        try:
            with caches_emptied(model.model.diffusion_model):
                return self._sampled(model, latent, noise, prompt_seeds)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            size = f"{self.sampling.width} x {self.sampling.height}"
            raise ValueError(
                f"model, clip and vae: together they cannot draw {size} pixels ({one_line(error)}); use the text "
                "encoder and the VAE that go with the model"
            ) from error

    def _sampled(self, model: ModelPatcher, latent: Tensor, noise: Tensor, prompt_seeds: list[PromptSeed]) -> Tensor:
        """As `draw`, from `noise` [len(prompt_seeds), C, *spatial]."""
        latents = comfy.sample.sample(
            model,
            noise,
            self.sampling.steps,
            self.sampling.cfg,
            self.sampling.sampler_name,
            self.sampling.scheduler,
            joined([self.encode(prompt) for prompt, _ in prompt_seeds]),
            self.encode(""),
            latent.repeat(len(prompt_seeds), *[1] * (latent.ndim - 1)),
            callback=lambda *_: self.on_step(len(prompt_seeds)),
            disable_pbar=True,
            seed=prompt_seeds[0][1],
        )
        pictures = self.vae.decode(latents)
        return pictures.reshape(-1, *pictures.shape[-3:]).float().cpu().clamp(0, 1)  # of one frame each


def picture_cache(fresh: bool) -> PictureCache:
    """The pictures that were drawn since ComfyUI started; none of them when `fresh`."""
    cache = PictureCache(Path(folder_paths.get_temp_directory()) / "unlearning_pictures")
    if fresh:
        cache.clear()
    return cache


def batch_shape(cond: list[Any]) -> tuple[torch.Size | None, ...] | None:
    """What must agree for two conditionings to share a batch: tokens, pooled text. None when this one cannot."""
    [[tokens, extra], *more] = cond
    if more or not set(extra) <= {"pooled_output"}:
        return None
    pooled = extra.get("pooled_output")
    return tokens.shape, None if pooled is None else pooled.shape


def joined(conds: list[list[Any]]) -> list[Any]:
    """One conditioning with a batch entry for each of `conds`."""
    if len(conds) == 1:
        return conds[0]
    tokens = torch.cat([cond[0][0] for cond in conds])
    names = conds[0][0][1]
    extra = {name: torch.cat([cond[0][1][name] for cond in conds]) for name in names if names[name] is not None}
    return [[tokens, extra]]
