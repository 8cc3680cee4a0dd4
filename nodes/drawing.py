"""Pictures of a MODEL for (prompt, seed) pairs, the same ones that KSampler makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ..unlearning_core.metrics.drawing import Shot, batch_size
from .model import empty_latent, encode_prompt

# Samplers that draw no noise on the way. The others draw it for the whole batch, so their pictures go one by one.
BATCHED = {"euler", "euler_cfg_pp", "heun", "heunpp2", "dpm_2", "lms", "dpmpp_2m", "ddim", "ipndm", "deis", "uni_pc"}


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn; size in pixels."""

    clip: CLIP
    vae: VAE
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    width: int
    height: int
    on_step: Callable[[int], None]  # told after each sampling step for how many pictures it was
    encoded: dict[str, Any] = field(default_factory=dict)

    def draw(self, model: ModelPatcher, shots: Sequence[Shot]) -> Tensor:
        """Pictures [len(shots), H, W, 3] in 0..1 on the CPU."""
        return torch.cat([self._draw_batch(model, batch) for batch in self._batches(shots)])

    def cond(self, prompt: str) -> Any:
        """ComfyUI's conditioning for a prompt, encoded once."""
        if prompt not in self.encoded:
            self.encoded[prompt] = encode_prompt(self.clip, prompt)
        return self.encoded[prompt]

    def _batches(self, shots: Sequence[Shot]) -> Iterator[list[Shot]]:
        """Runs of shots that can share a sampling run."""
        for shape, group in groupby(shots, key=lambda shot: batch_shape(self.cond(shot[0]))):
            same = list(group)
            together = shape is not None and self.sampler in BATCHED
            size = batch_size(self.width, self.height) if together else 1
            yield from (same[start : start + size] for start in range(0, len(same), size))

    def _draw_batch(self, model: ModelPatcher, shots: list[Shot]) -> Tensor:
        latent = empty_latent(model, self.width, self.height)
        noise = torch.cat([comfy.sample.prepare_noise(latent, seed) for _, seed in shots])
        latents = comfy.sample.sample(
            model,
            noise,
            self.steps,
            self.cfg,
            self.sampler,
            self.scheduler,
            joined([self.cond(prompt) for prompt, _ in shots]),
            self.cond(""),
            latent.repeat(len(shots), *[1] * (latent.ndim - 1)),
            callback=lambda *_: self.on_step(len(shots)),
            disable_pbar=True,
            seed=shots[0][1],
        )
        return self.vae.decode(latents).float().cpu().clamp(0, 1)


def batch_shape(cond: list[Any]) -> tuple[int, ...] | None:
    """What must agree for two conditionings to share a batch; None when this one cannot."""
    [[tokens, extra], *more] = cond
    plain = not more and set(extra) <= {"pooled_output"}
    return tuple(tokens.shape) if plain else None


def joined(conds: list[list[Any]]) -> list[Any]:
    """One conditioning with a batch entry for each of `conds`."""
    if len(conds) == 1:
        return conds[0]
    tokens = torch.cat([cond[0][0] for cond in conds])
    names = conds[0][0][1]
    extra = {name: torch.cat([cond[0][1][name] for cond in conds]) for name in names if names[name] is not None}
    return [[tokens, extra]]
