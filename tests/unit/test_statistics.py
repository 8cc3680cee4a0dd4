"""Confidence intervals: of a mean over prompts, and of a share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearning_core.metrics.statistics import bootstrap_interval, wilson_interval


def interval(values: torch.Tensor | list[float], **options: Any) -> tuple[float, float]:
    found = bootstrap_interval(values, **options)
    assert found is not None
    return found


VALUES = {"normal": torch.distributions.Normal(2.0, 1.0), "skewed": torch.distributions.Gamma(2.0, 1.0)}


@pytest.mark.parametrize("prompts", [8, 24])
@pytest.mark.parametrize("kind", VALUES)
def test_coverage(kind: str, prompts: int) -> None:
    """A 95 % interval should hold the mean 2.0 of normal values, and of ones as skewed as LPIPS over retain prompts."""
    torch.manual_seed(0)
    trials = VALUES[kind].sample((1000, prompts)).double()
    hits = sum(low <= 2 <= high for low, high in (interval(values, resamples=500) for values in trials))
    assert 0.92 <= hits / len(trials) <= 0.98


def test_the_same_values_give_the_same_interval() -> None:
    values = torch.linspace(0, 1, 24) ** 2
    assert interval(values) == interval(values.tolist()) == interval(values)
    assert interval(values) != interval(values, seed=1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    interval(values)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_interval_holds_the_mean_and_grows_with_the_level() -> None:
    values = torch.linspace(0, 1, 24) ** 2
    low, high = interval(values)
    wide_low, wide_high = interval(values, level=0.99)
    assert wide_low < low < values.mean().item() < high < wide_high


def test_students_interval_for_few_prompts() -> None:
    """2 +- 4.302653 / sqrt(3), from a table of Student's t with two degrees of freedom."""
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)


def test_distances_have_no_interval_below_zero() -> None:
    assert interval([1.0, 2.0, 3.0], lowest=0.0) == pytest.approx((0, 2 + 2.484138), abs=1e-5)


@pytest.mark.parametrize("count", [2, 24])
def test_equal_values_leave_no_doubt(count: int) -> None:
    assert interval([0.1] * count) == pytest.approx((0.1, 0.1))


def test_one_changed_prompt_in_eight_gives_a_finite_interval() -> None:
    low, high = interval([0.0] * 7 + [0.8])
    assert low < 0.1 < high < 10
    assert high > 0.1 + 2.36 * 0.1  # Student's t with seven degrees of freedom, and the standard error


def test_one_prompt_has_no_interval() -> None:
    assert bootstrap_interval([0.3]) is None


def test_no_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        bootstrap_interval([])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_coverage_of_a_share(share: float) -> None:
    """The probability, over all numbers of hits, that a 95 % interval of 40 pictures holds the share."""
    hits = torch.arange(41.0)
    chances = torch.distributions.Binomial(40, torch.tensor(share)).log_prob(hits).exp()
    inside = [low <= share <= high for low, high in (wilson_interval(int(number), 40) for number in hits)]
    assert float(chances[torch.tensor(inside)].sum()) == pytest.approx(0.95, abs=0.025)


def test_interval_of_a_share() -> None:
    """Known values of Wilson's interval; the mirror image for misses; narrower with more pictures."""
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    low, high = wilson_interval(3, 20)
    assert wilson_interval(17, 20) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(50, 100).low > wilson_interval(5, 10).low
