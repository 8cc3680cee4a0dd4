"""Model integrity: same-seed LPIPS between the base model's pictures and the unlearned model's.

Schioppa, Hoogeboom, Heek, "Model Integrity when Unlearning with T2I Diffusion Models" (arXiv 2411.02068): the integrity
loss I is the mean over retain prompts and seeds of LPIPS(base(prompt, seed), unlearned(prompt, seed)). Zero means
the same pictures, and lower is better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..processes import current
from .forgetting import Accuracies, Judge, Tally
from .lpips import Lpips
from .plan import BASE, UNLEARNED, Draw, Plan, PromptSeed, drawn
from .similarity import SIMILARITIES
from .statistics import Interval, bootstrap_interval

NOISE_FLOOR_PICTURES = 4
VERDICTS = "verdicts"  # of a judge, beside measures by their keys


@dataclass(frozen=True)
class Comparison:
    """What is compared and with what; a judge counts where there are forget prompts."""

    lpips: Lpips
    plan: Plan
    judge: Judge | None = None

    def tally(self) -> Tally | None:
        """For one model's pictures. Raises ValueError when the forget prompts share nothing that the judge knows."""
        return Tally(self.judge, self.plan.forget) if self.judge and self.plan.forget else None


@dataclass(frozen=True)
class PromptDistance:
    """How far one prompt's pictures moved, a value for each seed."""

    prompt: str
    seeds: list[int]
    lpips: list[float]
    similarities: dict[str, list[float | None]]  # by key of SIMILARITIES; None where it is infinite

    @property
    def mean(self) -> float:
        """Mean LPIPS over the seeds."""
        return statistics.fmean(self.lpips)

    def summary(self) -> dict[str, Any]:
        """The values as plain JSON."""
        return {"prompt": self.prompt, "seeds": self.seeds, "lpips": self.lpips, **self.similarities}


class WorstPicture(NamedTuple):
    """The retain picture that moved furthest."""

    prompt: str
    seed: int
    lpips: float


@dataclass(frozen=True)
class Retention:
    """What the metric found, with the settings that made it."""

    integrity: float  # the integrity loss I: mean LPIPS over the retain prompts
    interval: Interval | None  # 95 %, over prompts; None for a single prompt
    median: float  # LPIPS, over the retain pictures
    worst: WorstPicture
    per_seed: dict[int, float]  # mean LPIPS over the retain prompts with that seed
    noise_floor: float  # mean LPIPS of the base against a second run of the base
    retain: list[PromptDistance]
    forget: list[PromptDistance]
    forget_distance: float | None  # mean LPIPS over the forget prompts
    judge: str | None
    concept: str | None  # what the judge calls what was to be forgotten
    accuracies: Accuracies | None  # of the unlearned model's pictures
    base_accuracies: Accuracies | None  # of the base's pictures: what the judge itself gets wrong
    settings: dict[str, Any]

    @property
    def unlearning_accuracy(self) -> float | None:
        """UA: share of the unlearned model's forget pictures without the concept."""
        return self.accuracies.ua if self.accuracies else None

    def similarity(self, key: str) -> float | None:
        """The mean of one of SIMILARITIES over the retain pictures where it is finite; None where it is on none."""
        values = [value for row in self.retain for value in row.similarities[key] if value is not None]
        return statistics.fmean(values) if values else None

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return {
            **asdict(self),
            **{measure.key: self.similarity(measure.key) for measure in SIMILARITIES},
            "worst": self.worst._asdict(),
            "per_seed": {str(seed): value for seed, value in self.per_seed.items()},
            "retain": [row.summary() for row in self.retain],
            "forget": [row.summary() for row in self.forget],
            "unlearning_accuracy": self.unlearning_accuracy,
        }


@dataclass(frozen=True)
class Baseline:
    """What the base's own pictures show, whatever they are compared to."""

    noise_floor: float
    accuracies: Accuracies | None


def measure(
    base: Draw, unlearned: Draw, comparison: Comparison, settings: dict[str, Any], base_again: Draw
) -> Retention:
    """The figures of one unlearned model.

    `settings` describes how the pictures are drawn; backbone and seeds are added to it. Pictures pass through in chunks
    and are asked for more than once, so give draws that keep them (`Studio.cached`), and one that does not as
    `base_again`, which draws for the noise floor. Raises ValueError when a picture has NaN, and before anything is
    drawn when the judge does not know what the forget prompts have in common.
    """
    known = baseline(base, base_again, comparison)
    return retention_of(known, movement(base, unlearned, comparison), comparison, settings)


def baseline(base: Draw, base_again: Draw, comparison: Comparison) -> Baseline:
    """Draws all of the base's pictures, so that later no two models take turns on the device. Raises as `measure`.

    Processes share the plan's chunks, here and in `movement`.
    """
    tally, plan = comparison.tally(), comparison.plan

    def look(chunk: Sequence[PromptSeed]) -> dict[str, Tensor]:
        return _verdicts(tally, drawn(base, chunk, BASE), chunk)

    def again(prompt_seeds: Sequence[PromptSeed]) -> dict[str, Tensor]:
        return {"LPIPS": noise_distances(base, base_again, comparison.lpips, prompt_seeds)}

    for chunk, seen in zip(plan.chunks, current().ordered(plan.chunks, look), strict=True):
        _count(tally, seen, chunk)
    [floor] = current().ordered([plan.retain_prompt_seeds], again)
    return Baseline(floor["LPIPS"].mean().item(), tally.result() if tally else None)


def movement(base: Draw, unlearned: Draw, comparison: Comparison, name: str = UNLEARNED) -> Movement:
    """What `measure` sees of a model with a `name` for messages, picture by picture. Raises as that does."""
    tally, plan = comparison.tally(), comparison.plan

    def look(chunk: Sequence[PromptSeed]) -> dict[str, Tensor]:
        before, after = drawn(base, chunk, BASE), drawn(unlearned, chunk, name)
        similarities = {each.key: torch.tensor(each.of(before, after), dtype=torch.float64) for each in SIMILARITIES}
        return {"LPIPS": comparison.lpips.distance(before, after), **similarities, **_verdicts(tally, after, chunk)}

    moved = Movement(tally)
    for chunk, seen in zip(plan.chunks, current().ordered(plan.chunks, look), strict=True):
        _count(tally, seen, chunk)
        moved.lpips += seen["LPIPS"].tolist()
        for key, values in moved.similarities.items():
            values += seen[key].tolist()
    return moved


def _verdicts(tally: Tally | None, pictures: Tensor, chunk: Sequence[PromptSeed]) -> dict[str, Tensor]:
    return {VERDICTS: tally.verdicts(pictures, [prompt for prompt, _ in chunk])} if tally else {}


def _count(tally: Tally | None, seen: dict[str, Tensor], chunk: Sequence[PromptSeed]) -> None:
    if tally:
        tally.count(seen[VERDICTS], [prompt for prompt, _ in chunk])


@dataclass
class Movement:
    """LPIPS and the similarities of each picture of a plan, and what a judge saw there."""

    tally: Tally | None
    lpips: list[float] = field(default_factory=list)
    similarities: dict[str, list[float]] = field(default_factory=lambda: {each.key: [] for each in SIMILARITIES})

    def rows(self, prompts: Sequence[str], seeds: Sequence[int], start: int) -> list[PromptDistance]:
        """The pictures from `start`, prompt by prompt, as one row each."""
        slices = [slice(start + index * len(seeds), start + (index + 1) * len(seeds)) for index in range(len(prompts))]
        return [
            PromptDistance(
                prompt,
                list(seeds),
                self.lpips[row],
                {key: [finite(value) for value in values[row]] for key, values in self.similarities.items()},
            )
            for prompt, row in zip(prompts, slices, strict=True)
        ]


def retention_of(known: Baseline, moved: Movement, comparison: Comparison, settings: dict[str, Any]) -> Retention:
    """As `measure`, of what is known of the base and how the pictures moved."""
    tally, plan, cut = moved.tally, comparison.plan, len(comparison.plan.retain_prompt_seeds)
    kept = moved.rows(plan.retain, plan.seeds, 0)
    lost = moved.rows(plan.forget, plan.forget_seeds, cut)
    distances = moved.lpips[:cut]
    worst = max(range(cut), key=distances.__getitem__)
    every = len(plan.seeds)
    return Retention(
        integrity=statistics.fmean(distances),
        interval=bootstrap_interval([row.mean for row in kept], lowest=0.0),
        median=statistics.median(distances),
        worst=WorstPicture(*plan.retain_prompt_seeds[worst], distances[worst]),
        per_seed={seed: statistics.fmean(distances[index::every]) for index, seed in enumerate(plan.seeds)},
        noise_floor=known.noise_floor,
        retain=kept,
        forget=lost,
        forget_distance=statistics.fmean(moved.lpips[cut:]) if plan.forget else None,
        judge=tally.judge.name if tally else None,
        concept=tally.target.label if tally else None,
        accuracies=tally.result() if tally else None,
        base_accuracies=known.accuracies,
        settings={**settings, **plan.settings(), "LPIPS backbone": comparison.lpips.backbone},
    )


def noise_distances(base: Draw, base_again: Draw, lpips: Lpips, prompt_seeds: Sequence[PromptSeed]) -> Tensor:
    """LPIPS of the base against a second run of it in another order, so in batches composed differently, of some."""
    repeated = list(prompt_seeds[:NOISE_FLOOR_PICTURES])
    again = drawn(base_again, repeated[::-1], BASE)
    return lpips.distance(drawn(base, repeated, BASE), again.flip(0))


def count_pictures(plan: Plan, models: int = 1) -> int:
    """How many pictures `measure` draws, or `evaluate` of so many unlearned models."""
    return (1 + models) * len(plan.prompt_seeds) + count_floor(plan)


def count_floor(plan: Plan) -> int:
    """How many pictures the base draws again for the noise floor."""
    return min(len(plan.retain_prompt_seeds), NOISE_FLOOR_PICTURES)


def finite(value: float) -> float | None:
    """The value, or None for an infinite one, which JSON does not have."""
    return value if math.isfinite(value) else None


def distances_of(rows: Iterable[PromptDistance]) -> list[tuple[PromptSeed, float]]:
    """Each picture with its LPIPS."""
    return [((row.prompt, seed), value) for row in rows for seed, value in zip(row.seeds, row.lpips, strict=True)]
