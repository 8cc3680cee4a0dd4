"""Pictures of a model outside ComfyUI: Euler's method with guidance, seed by seed as ComfyUI's KSampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .hosts.diffusers import DiffusersModel
from .metrics.drawing import batch_size
from .model import noise_prediction


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn; size in pixels."""

    steps: int = 25
    cfg: float = 3.0
    width: int = 512
    height: int = 512

    def settings(self) -> dict[str, object]:
        """For a report."""
        return {
            "sampler": "euler",
            "scheduler": "simple",
            "steps": self.steps,
            "cfg": self.cfg,
            "size": f"{self.width}x{self.height}",
        }


@torch.no_grad()
def draw(model: DiffusersModel, shots: Sequence[tuple[str, int]], sampling: Sampling) -> Tensor:
    """Pictures [len(shots), H, W, 3] in 0..1 on the CPU of (prompt, seed) pairs."""
    size = batch_size(sampling.width, sampling.height)
    batches = [shots[start : start + size] for start in range(0, len(shots), size)]
    return torch.cat([_draw_batch(model, batch, sampling) for batch in batches])


def _draw_batch(model: DiffusersModel, shots: Sequence[tuple[str, int]], sampling: Sampling) -> Tensor:
    conds = model.encode([prompt for prompt, _ in shots])
    unconds = model.encode([""]) * len(shots)
    sigmas = model.sigmas(sampling.steps)
    x = model.noise([seed for _, seed in shots], sampling.width, sampling.height)
    for sigma, sigma_next in pairwise(sigmas):
        e_uncond, e_cond = noise_prediction(
            model, torch.cat([x, x]), sigma.expand(2 * len(shots)), unconds + conds
        ).chunk(2)
        x = x + (sigma_next - sigma) * (e_uncond + sampling.cfg * (e_cond - e_uncond))
    return model.decode(x).cpu()
