"""Everything about one or more unlearned models of one base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..processes import current
from .figure import Measured
from .plan import BASE, Draw
from .quality import Networks, Quality, check_pictures, embed, quality_of
from .retention import Comparison, Retention, baseline, movement, retention_of


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

    @property
    def measured(self) -> Measured:
        """For the list of figures."""
        return Measured.of(self.retention, self.quality)


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
    comparison: Comparison,
    networks: Networks,
    settings: dict[str, Any],
    base_again: Draw,
) -> list[Evaluation]:
    """Each of the `unlearned` models' figures under its name, the lowest integrity loss first.

    Draws and `settings` are as for `retention.measure`. Raises as that, `quality.measure_quality` and `check_names` do.
    Processes that share the run (see `processes`) share the pictures, and the figures are the same in any number of
    them; the main one alone computes and returns any.
    """
    plan = comparison.plan
    check_names(list(unlearned))
    check_pictures(plan)
    known = baseline(base, base_again, comparison)
    embedded = embed(base, networks, plan, BASE)
    found = []
    for name, (draw, identity) in unlearned.items():
        moved, after = movement(base, draw, comparison, name), embed(draw, networks, plan, name)
        if current().is_main:
            all_settings = {**settings, **identity}
            retention = retention_of(known, moved, comparison, all_settings)
            quality = quality_of(embedded, after, networks.clip, plan, all_settings)
            found.append(Evaluation(name, retention, quality))
    return sorted(found, key=lambda evaluation: evaluation.retention.integrity)


def shared_settings(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Those with the same value for every model."""
    settings = [{**entry.quality.settings, **entry.retention.settings} for entry in evaluations]
    return {name: value for name, value in settings[0].items() if all(other[name] == value for other in settings)}
