"""What chance did: figures of retain pictures over resamples of their prompts, the same ones for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unlearning_core.metrics.frechet import frechet_distance
from unlearning_core.metrics.statistics import Interval

RESAMPLES = 200
DIGITS = 6  # that are kept
LEVEL = 0.95


def prompts_drawn(count: int) -> Tensor:
    """The prompts of each resample, with replacement: [RESAMPLES, count], the same in every process."""
    return torch.randint(count, (RESAMPLES, count), generator=torch.Generator().manual_seed(0))


def means(by_prompt: Tensor) -> list[float]:
    """The mean of a figure [prompts, seeds] in each resample."""
    values = by_prompt.mean(1)[prompts_drawn(len(by_prompt))].mean(1)
    return [round(value, DIGITS) for value in values.tolist()]


def frechet_distances(pictures: Tensor, reference: Tensor) -> list[float]:
    """The Fréchet distance of features [prompts, seeds, D] and [prompts, other seeds, D] in each resample."""
    return [
        round(frechet_distance(pictures[drawn].flatten(0, 1), reference[drawn].flatten(0, 1)), DIGITS)
        for drawn in prompts_drawn(len(pictures))
    ]


Resampled = Mapping[str, list[float]]  # figure -> its value in each resample, of one training seed


def difference(first: Sequence[Resampled], second: Sequence[Resampled], figure: str) -> Interval:
    """Of two methods in a figure, each a mean over training seeds: the percentile interval over the resamples."""
    values = _mean_over_seeds(first, figure) - _mean_over_seeds(second, figure)
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = values.quantile(tails).tolist()
    return Interval(low, high)


def is_clear(interval: Interval) -> bool:
    """Whether it does not contain 0."""
    return not interval.low <= 0 <= interval.high


def _mean_over_seeds(runs: Sequence[Resampled], figure: str) -> Tensor:
    return torch.tensor([run[figure] for run in runs], dtype=torch.float64).mean(0)
