"""The figures of a report: one list, which tables, leaderboard, CSV, JSON, plots and documentation read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .forgetting import Accuracies, Forgetting
from .quality import ClipScore, Quality
from .retention import Retention
from .similarity import SIMILARITIES, Similarity

Value = Any  # a number, a NamedTuple of numbers, or None where nothing was measured


@dataclass(frozen=True)
class Measured:
    """What is known of one unlearned model; None for what was not measured."""

    retention: Retention | None = None
    accuracies: Accuracies | None = None
    base_accuracies: Accuracies | None = None  # of the base's pictures
    quality: Quality | None = None

    @classmethod
    def of(
        cls, retention: Retention | None = None, quality: Quality | None = None, forgetting: Forgetting | None = None
    ) -> Measured:
        """From the metrics' results; UA, IRA and CRA come from `forgetting`, else from `retention`."""
        if forgetting:
            return cls(retention, forgetting.unlearned, forgetting.base, quality)
        if retention:
            return cls(retention, retention.accuracies, retention.base_accuracies, quality)
        return cls(quality=quality)


@dataclass(frozen=True)
class Figure:
    """A figure, and how it is shown."""

    key: str  # in JSON and CSV; the parts of an interval have `key low` and `key high`
    heading: str  # of a column, and on an axis
    format: str  # of str.format
    higher_is_better: bool | None  # None for neither
    of: Callable[[Measured], Value]
    about: str = ""  # what it is, in a few words
    of_base: Callable[[Measured], Value] = lambda measured: None  # the same of the base's own pictures
    note: Callable[[Measured], str | None] = lambda measured: None  # what is shown beside it in a node's table
    in_table: bool = True  # of a node
    in_leaderboard: bool = False
    meaning: str = ""  # what the documentation says in place of `about`

    @property
    def label(self) -> str:
        """`I (integrity loss, lower is better)`."""
        explained = ", ".join(filter(None, (self.about, self._better)))
        if not explained:
            return self.heading
        return f"{self.heading}: {explained}" if "(" in self.heading else f"{self.heading} ({explained})"

    @property
    def axis(self) -> str:
        """`UA, higher is better`, short enough for a small plot."""
        return ", ".join(filter(None, (self.heading, self._better)))

    @property
    def _better(self) -> str:
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]

    @property
    def column(self) -> str:
        """The heading with an arrow towards the better end."""
        return self.heading + {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]

    def text(self, value: Value) -> str:
        """A value as it is shown."""
        return "infinite" if value == math.inf else self.format.format(value)

    def cell(self, measured: Measured) -> str | None:
        """The value as a node's table shows it, with the base's or a note beside it; None where there is no value."""
        value, base = self.of(measured), self.of_base(measured)
        if value is None:
            return None
        beside = self.note(measured) if base is None else f"base {self.text(base)}"
        return f"{self.text(value)} ({beside})" if beside else self.text(value)

    def numbers(self, measured: Measured) -> dict[str, float]:
        """Its finite numbers by key, the base's under `base …`."""
        found: dict[str, float] = {}
        for key, value in ((self.key, self.of(measured)), (f"base {self.key}", self.of_base(measured))):
            parts = (
                {f"{key} {name}": part for name, part in value._asdict().items()} if _is_named(value) else {key: value}
            )
            found |= {name: part for name, part in parts.items() if part is not None and math.isfinite(part)}
        return found


def _is_named(value: Value) -> bool:
    """Whether it is a NamedTuple."""
    return hasattr(value, "_asdict")


def _of_retention(name: str) -> Callable[[Measured], Value]:
    return lambda measured: getattr(measured.retention, name, None)


def _of_quality(name: str) -> Callable[[Measured], Value]:
    return lambda measured: getattr(measured.quality, name, None)


def _of_similarity(similarity: Similarity) -> Figure:
    """The mean over the retain pictures; infinite where all of them are the same."""

    def mean(measured: Measured) -> Value:
        if measured.retention is None:
            return None
        value = measured.retention.similarity(similarity.key)
        return math.inf if value is None else value

    about = "retain pictures"
    return Figure(similarity.key, similarity.heading, similarity.format, similarity.higher_is_better, mean, about)


def _of_judge(key: str, heading: str, about: str) -> Figure:
    """A share of pictures that the judge counts, beside the base's."""
    return Figure(
        key,
        heading,
        "{:.1%}",
        True,
        lambda measured: getattr(measured.accuracies, key, None),
        about,
        of_base=lambda measured: getattr(measured.base_accuracies, key, None),
        in_leaderboard=True,
    )


def _of_clip(key: str, heading: str, name: str, in_leaderboard: bool) -> Figure:
    """A CLIPScore beside the base's."""

    def of(side: str) -> Callable[[Measured], Value]:
        def value(measured: Measured) -> Value:
            score: ClipScore | None = getattr(measured.quality, name, None)
            return score and getattr(score, side)

        return value

    about = f"{key.rsplit(' ', 1)[1]} prompts"
    return Figure(
        key,
        heading,
        "{:.2f}",
        True,
        of("unlearned"),
        about,
        of_base=of("base"),
        in_leaderboard=in_leaderboard,
        meaning=f"how well pictures fit their {about}, 0 to 100",
    )


def distance_ratio(measured: Measured) -> float | None:
    """The forget distance over the integrity loss; infinite when no retain picture moved."""
    retention = measured.retention
    if retention is None or retention.forget_distance is None:
        return None
    return retention.forget_distance / retention.integrity if retention.integrity else math.inf


def worst_lpips(measured: Measured) -> float | None:
    """LPIPS of the retain picture that moved furthest."""
    return measured.retention.worst.lpips if measured.retention else None


def worst_picture(measured: Measured) -> str | None:
    """Which picture that is."""
    if measured.retention is None:
        return None
    return f"{measured.retention.worst.prompt}, seed {measured.retention.worst.seed}"


def judge_on_base(measured: Measured) -> float | None:
    """Share of the base's pictures that the judge names correctly."""
    return measured.base_accuracies.right if measured.base_accuracies else None


def judge_on_unlearned(measured: Measured) -> float | None:
    """The same of the unlearned model's pictures, where the forgotten ones are to be wrong."""
    return measured.accuracies.right if measured.accuracies else None


FIGURES = (  # in the order of tables
    Figure(
        "integrity",
        "I",
        "{:.4f}",
        False,
        _of_retention("integrity"),
        "integrity loss",
        in_leaderboard=True,
        meaning="integrity loss: mean LPIPS of the retain pictures",
    ),
    Figure(
        "interval",
        "95 % interval",
        "{0.low:.4f} to {0.high:.4f}",
        None,
        _of_retention("interval"),
        in_leaderboard=True,
        meaning="of I, over the retain prompts",
    ),
    Figure("noise floor", "noise floor", "{:.1e}", None, _of_retention("noise_floor"), "the base against itself"),
    Figure(
        "forget distance",
        "forget distance",
        "{:.4f}",
        True,
        _of_retention("forget_distance"),
        in_leaderboard=True,
        meaning="mean LPIPS of the forget pictures",
    ),
    Figure(
        "forget distance / I",
        "forget distance / I",
        "{:.1f}",
        True,
        distance_ratio,
        meaning="how much further the forget pictures moved than the retain pictures",
    ),
    _of_judge("ua", "UA", "forget pictures without the concept"),
    _of_judge("ira", "IRA", "retain pictures right, same domain"),
    _of_judge("cra", "CRA", "retain pictures right, other domain"),
    Figure(
        "base right",
        "judge's own accuracy (base pictures)",
        "{:.1%}",
        None,
        judge_on_base,
        meaning="base's pictures that the judge names correctly",
    ),
    Figure(
        "right",
        "judge's accuracy (unlearned pictures)",
        "{:.1%}",
        None,
        judge_on_unlearned,
        in_table=False,
        meaning="the same of the unlearned model's pictures, where the forgotten ones are to be wrong",
    ),
    Figure("median", "median LPIPS", "{:.4f}", False, _of_retention("median"), "retain pictures"),
    Figure(
        "worst",
        "worst LPIPS",
        "{:.4f}",
        None,
        worst_lpips,
        note=worst_picture,
        meaning="of the retain picture that moved furthest",
    ),
    *map(_of_similarity, SIMILARITIES),
    Figure(
        "frechet alexnet",
        "FD (AlexNet)",
        "{:.4f}",
        False,
        _of_quality("frechet_alexnet"),
        "Fréchet distance from the base's pictures, AlexNet features",
        in_leaderboard=True,
    ),
    Figure(
        "fid",
        "FID",
        "{:.2f}",
        False,
        _of_quality("fid"),
        "from the base's pictures",
        in_leaderboard=True,
        meaning="Fréchet distance from the base's pictures, Inception features",
    ),
    Figure(
        "cmmd",
        "CMMD",
        "{:.4f}",
        False,
        _of_quality("cmmd"),
        "from the base's pictures",
        in_leaderboard=True,
        meaning="maximum mean discrepancy from the base's pictures, CLIP embeddings",
    ),
    _of_clip("clip score retain", "CLIPScore", "clip_score", in_leaderboard=True),
    _of_clip("clip score forget", "CLIPScore", "forget_clip_score", in_leaderboard=False),
)


def figure_named(key: str) -> Figure:
    """The figure with this key. Raises StopIteration for another key."""
    return next(figure for figure in FIGURES if figure.key == key)


def values_of(measured: Measured) -> dict[str, float]:
    """Every finite number of what was measured, by key."""
    return {key: number for figure in FIGURES for key, number in figure.numbers(measured).items()}
