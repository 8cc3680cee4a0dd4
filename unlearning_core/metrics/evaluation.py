"""Everything about one or more unlearned models of one base, for the node and the command that compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .clip import Clip
from .drawing import Draw
from .forgetting import Accuracies, Judge
from .inception import Fid
from .lpips import Lpips
from .quality import Quality, measure_quality
from .report import Value, quality_values, retention_values
from .retention import Retention, measure

BEST_FIRST = (  # heading, and whether a larger value is better
    ("I", False),
    ("95 % interval", None),
    ("forget distance", True),
    ("UA", True),
    ("IRA", True),
    ("CRA", True),
    ("FD (AlexNet)", False),
    ("FID", False),
    ("CMMD", False),
    ("CLIPScore", True),
)


@dataclass(frozen=True)
class Evaluation:
    """One unlearned model's figures."""

    name: str
    retention: Retention
    quality: Quality

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return {"name": self.name, "retention": self.retention.summary(), "quality": self.quality.summary()}

    def cells(self) -> dict[str, str]:
        """The leaderboard's row as text, under the headings of BEST_FIRST; unmeasured figures are missing."""
        retention, quality = self.retention, self.quality
        shares = retention.accuracies or Accuracies(None, None, None, None)
        low_high = retention.interval
        values = {
            "I": f"{retention.integrity:.4f}",
            "95 % interval": f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else None,
            "forget distance": _text(retention.forget_distance, ".3f"),
            "UA": _text(shares.ua, ".1%"),
            "IRA": _text(shares.ira, ".1%"),
            "CRA": _text(shares.cra, ".1%"),
            "FD (AlexNet)": f"{quality.frechet_alexnet:.3f}",
            "FID": _text(quality.fid, ".2f"),
            "CMMD": _text(quality.cmmd, ".4f"),
            "CLIPScore": _text(quality.clip_score.unlearned if quality.clip_score else None, ".2f"),
        }
        return {heading: value for heading, value in values.items() if value is not None}


def evaluate(
    base: Draw,
    unlearned: Mapping[str, Draw],
    lpips: Lpips,
    alexnet: Lpips,
    retain: Sequence[str],
    forget: Sequence[str],
    seeds: Sequence[int],
    forget_seeds: Sequence[int],
    settings: dict[str, Any],
    judge: Judge | None = None,
    clip: Clip | None = None,
    fid: Fid | None = None,
    base_again: Draw | None = None,
) -> list[Evaluation]:
    """Each of the `unlearned` models' figures, most integrity first.

    The models' pictures are asked for more than once, so give draws that keep them (`PictureCache.drawing`). Raises as
    `retention.measure` and `quality.measure_quality` do.
    """
    found = []
    for name, draw in unlearned.items():
        retention, _ = measure(
            base, draw, lpips, retain, forget, seeds, forget_seeds, settings, judge, base_again or base
        )
        quality = measure_quality(base, draw, alexnet, retain, forget, seeds, forget_seeds, settings, clip, fid)
        found.append(Evaluation(name, retention, quality))
    return sorted(found, key=lambda evaluation: evaluation.retention.integrity)


def leaderboard(evaluations: Sequence[Evaluation]) -> str:
    """One row a model as Markdown, and below it the judge's own accuracy and the settings."""
    rows = [evaluation.cells() for evaluation in evaluations]
    shown = [(heading, rising) for heading, rising in BEST_FIRST if any(heading in row for row in rows)]
    arrows = {True: " ↑", False: " ↓", None: ""}
    head = " | ".join(f"{heading}{arrows[rising]}" for heading, rising in shown)
    first = evaluations[0].retention
    settings = {**evaluations[0].quality.settings, **first.settings}
    notes = [", ".join(f"{name} {value}" for name, value in settings.items())]
    if first.base_accuracies:
        notes.insert(0, f"Judge: {first.judge}; on the base's pictures: {judge_text(first.base_accuracies)}")
    return "\n".join(
        [
            f"| model | {head} |",
            "|---" * (len(shown) + 1) + "|",
            *(
                f"| {evaluation.name} | {' | '.join(row.get(heading, '') for heading, _ in shown)} |"
                for evaluation, row in zip(evaluations, rows, strict=True)
            ),
            "",
            "\n\n".join(notes),
        ]
    )


def report(evaluations: Sequence[Evaluation]) -> tuple[dict[str, Any], list[Value]]:
    """Everything for `report.write_report`."""
    values = [
        value
        for entry in evaluations
        for value in (*retention_values(entry.retention, entry.name), *quality_values(entry.quality, entry.name))
    ]
    return {"models": [entry.summary() for entry in evaluations]}, values


def judge_text(base: Accuracies) -> str:
    """What the judge makes of the base's own pictures."""
    named = [("right", base.right), ("UA", base.ua), ("IRA", base.ira), ("CRA", base.cra)]
    return ", ".join(f"{name} {value:.1%}" for name, value in named if value is not None)


def _text(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
