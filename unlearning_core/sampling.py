"""Euler's method with classifier-free guidance, and how many pictures share a call of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from .options import check_ranges, option

BATCH = 16  # pictures in one call of a network, at most
SEEDS = 2**64  # how many seeds a random generator takes

Predict = Callable[[Tensor, Tensor], Tensor]  # x [B, C, *spatial] and sigma [] -> noise prediction of x's shape


@dataclass(frozen=True)
class Sampling:
    """How latents are sampled; a picture's sides are in pixels. Raises ValueError for a value out of range."""

    steps: int = option(25, 1, 10_000, "Euler steps", step=1)
    cfg: float = option(3.0, 0.0, 100.0, "guidance scale")
    width: int = 512
    height: int = 512

    def __post_init__(self) -> None:
        check_ranges(self)

    def settings(self) -> dict[str, object]:
        """For a report."""
        return {
            "sampler": "euler",
            "scheduler": "simple",
            "steps": self.steps,
            "cfg": self.cfg,
            "size": f"{self.width}x{self.height}",
        }


def sample_euler(predict: Predict, x: Tensor, sigmas: Tensor) -> Tensor:
    """Euler's method (Karras et al. 2022, arXiv 2206.00364, algorithm 1 without its second-order correction).

    From x [B, C, *spatial] at sigmas[0] to sigmas[-1], the last of `sigmas` [steps + 1], by `predict`'s directions.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x = x + (sigma_next - sigma) * predict(x, sigma)
    return x


def guided(e_uncond: Tensor, e_cond: Tensor, cfg: float) -> Tensor:
    """The noise prediction under classifier-free guidance of scale `cfg` (Ho and Salimans, arXiv 2207.12598)."""
    return e_uncond + cfg * (e_cond - e_uncond)


def batch_size(width: int, height: int, pixels: int) -> int:
    """How many pictures of width x height pixels share a call that takes `pixels` of them: 1 to BATCH."""
    return min(BATCH, max(1, pixels // (width * height)))
