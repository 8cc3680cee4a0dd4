"""Everything about one or more unlearned models of one base, for the node and the command that compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .drawing import BASE, Draw, Plan
from .forgetting import Accuracies, Judge
from .lpips import Lpips
from .quality import Networks, Quality, check_pictures, quality_of, see
from .report import Value, quality_values, retention_values
from .retention import Retention, baseline, retention_of
from .tables import markdown_table, settings_line

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


class Candidate(NamedTuple):
    """An unlearned model: what draws with it, and what identifies it in a report."""

    draw: Draw
    settings: dict[str, Any]


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
            "CMMD": f"{quality.cmmd:.4f}",
            "CLIPScore": f"{quality.clip_score.unlearned:.2f}",
        }
        return {heading: value for heading, value in values.items() if value is not None}


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError for two models of one name, or one that stands for the base."""
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise ValueError(f"names: two models have the same name, {twice[0]!r}; give each its own")
    if BASE in names:
        raise ValueError(f"names: {BASE!r} stands for the base itself; give the unlearned model another name")


def evaluate(
    base: Draw,
    unlearned: Mapping[str, Candidate],
    lpips: Lpips,
    networks: Networks,
    plan: Plan,
    settings: dict[str, Any],
    judge: Judge | None,
    base_again: Draw,
) -> list[Evaluation]:
    """Each of the `unlearned` models' figures under its name, most integrity first.

    Draws and `settings` are as for `retention.measure`. Raises as that, `quality.measure_quality` and `check_names` do.
    """
    check_names(list(unlearned))
    check_pictures(plan)
    known = baseline(base, base_again, lpips, plan, judge)
    seen = see(base, networks, plan, BASE)
    found = []
    for name, (draw, identity) in unlearned.items():
        all_settings = {**settings, **identity}
        retention = retention_of(known, base, draw, lpips, plan, all_settings, judge, name)
        of_draw = quality_of(seen, see(draw, networks, plan, name), networks.clip, plan, all_settings)
        found.append(Evaluation(name, retention, of_draw))
    return sorted(found, key=lambda evaluation: evaluation.retention.integrity)


def leaderboard(evaluations: Sequence[Evaluation]) -> str:
    """One row a model as Markdown, and below it the judge's own accuracy and the settings that all share."""
    rows = [evaluation.cells() for evaluation in evaluations]
    shown = [(heading, rising) for heading, rising in BEST_FIRST if any(heading in row for row in rows)]
    arrows = {True: " ↑", False: " ↓", None: ""}
    first = evaluations[0].retention
    blocks = [
        markdown_table(
            ["model", *(f"{heading}{arrows[rising]}" for heading, rising in shown)],
            [
                [evaluation.name, *(row.get(heading, "") for heading, _ in shown)]
                for evaluation, row in zip(evaluations, rows, strict=True)
            ],
        )
    ]
    if first.base_accuracies:
        blocks.append(f"Judge: {first.judge}; on the base's pictures: {judge_text(first.base_accuracies)}")
    return "\n\n".join([*blocks, settings_line(shared_settings(evaluations))])


def shared_settings(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Those with the same value for every model."""
    settings = [{**entry.quality.settings, **entry.retention.settings} for entry in evaluations]
    return {name: value for name, value in settings[0].items() if all(other[name] == value for other in settings)}


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
