"""Figures as files: JSON with everything, and one long CSV table that a spreadsheet or pandas reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..attacks.examine import Examination
from ..files import write_atomically
from ..metrics.evaluation import Evaluation
from ..metrics.figure import Measured, values_of
from ..metrics.forgetting import Accuracies, Forgetting
from ..metrics.plan import Plan
from ..metrics.quality import Quality
from ..metrics.retention import Retention


class Value(NamedTuple):
    """A row of the CSV. `kind`, `prompt` and `seed` are empty for a figure over all pictures.

    Of attacks, `kind` is the attack and `prompt` its setting.
    """

    model: str
    figure: str
    kind: str
    prompt: str
    seed: int | str
    value: Any


class Report(NamedTuple):
    """A metric's result for both files."""

    summary: dict[str, Any]  # plain JSON
    values: list[Value]


def retention_report(retention: Retention) -> Report:
    """Every figure of the integrity metric, picture by picture, and its settings."""
    return _report(retention.summary(), Measured.of(retention), _retention_values(retention, ""))


def forgetting_report(forgetting: Forgetting) -> Report:
    """UA, IRA, CRA and the judge's own accuracy, on the pictures of both models, prompt by prompt, and the settings."""
    return _report(forgetting.summary(), Measured.of(forgetting=forgetting), _forgetting_values(forgetting))


def quality_report(quality: Quality) -> Report:
    """Every figure of the quality metrics, and their settings."""
    return _report(quality.summary(), Measured.of(quality=quality), _quality_values(quality, ""))


def comparison_report(evaluations: Sequence[Evaluation], examination: Examination | None = None) -> Report:
    """Everything about several models, and about attacks on them."""
    models, values = [], []
    for entry in evaluations:
        rest = [*_retention_values(entry.retention, entry.name), *_quality_values(entry.quality, entry.name)]
        summary = {"name": entry.name, "retention": entry.retention.summary(), "quality": entry.quality.summary()}
        report = _report(summary, entry.measured, iter(rest), entry.name)
        models.append(report.summary)
        values += report.values
    if examination is None:
        return Report({"models": models}, values)
    attacks = attack_report(examination)
    return Report({"models": models, "attacks": attacks.summary}, values + attacks.values)


def attack_report(examination: Examination) -> Report:
    """What every attack's settings brought back in every model, and the settings; `kind` is the attack's name."""
    return Report(examination.summary(), [*_attack_values(examination), *_settings(examination.settings, "")])


def write_report(path: Path, report: Report) -> list[Path]:
    """Writes `path` with .json and .csv for its suffix, each in one move; returns both paths.

    Raises ValueError for a figure that is NaN or infinite.
    """
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(Value._fields)
    writer.writerows(report.values)
    text = json.dumps(report.summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return [_written(Path(f"{path}{suffix}"), text) for suffix, text in ((".json", text), (".csv", table.getvalue()))]


def _report(summary: dict[str, Any], measured: Measured, rest: Iterator[Value], model: str = "") -> Report:
    """The figures of what was measured, in the summary as `figures`, and `rest` behind them."""
    figures = values_of(measured)
    return Report({**summary, "figures": figures}, [*_overall(model, figures), *rest])


def _attack_values(examination: Examination) -> Iterator[Value]:
    for model, findings in examination.findings.items():
        for finding in findings:
            yield Value(model, "network calls", finding.attack, "", "", finding.calls)
            for look in finding.looks:
                figures: dict[str, Any] = {"hits": look.hits, "pictures": look.count, "training steps": look.steps}
                figures |= {"words": look.words} if look.words else {}
                for figure, value in {"share": look.share, **figures}.items():
                    yield Value(model, figure, finding.attack, look.setting, "", value)


def _retention_values(retention: Retention, model: str) -> Iterator[Value]:
    yield from _accuracy_values(retention.accuracies, retention.base_accuracies, model)
    for seed, mean in retention.per_seed.items():
        yield Value(model, "integrity", "retain", "", seed, mean)
    for kind in ("retain", "forget"):
        for row in getattr(retention, kind):
            for figure, values in {"lpips": row.lpips, **row.similarities}.items():
                for seed, value in zip(row.seeds, values, strict=True):
                    yield Value(model, figure, kind, row.prompt, seed, value)
    yield from _settings(retention.settings, model)


def _forgetting_values(forgetting: Forgetting) -> Iterator[Value]:
    yield from _accuracy_values(forgetting.unlearned, forgetting.base, "")
    yield from _pictures(forgetting.plan, "")
    yield from _settings(forgetting.settings, "")


def _quality_values(quality: Quality, model: str) -> Iterator[Value]:
    yield from _pictures(quality.plan, model)
    yield from _settings(quality.settings, model)


def _overall(model: str, figures: dict[str, Any]) -> Iterator[Value]:
    return (Value(model, name, "", "", "", value) for name, value in figures.items())


def _settings(settings: dict[str, Any], model: str) -> Iterator[Value]:
    return _overall(model, {f"setting {name}": value for name, value in settings.items() if value is not None})


def _pictures(plan: Plan, model: str) -> Iterator[Value]:
    """How many pictures each prompt had."""
    for kind, prompts, seeds in (("retain", plan.retain, plan.seeds), ("forget", plan.forget, plan.forget_seeds)):
        for prompt in prompts:
            yield Value(model, "pictures", kind, prompt, "", len(seeds))


def _accuracy_values(unlearned: Accuracies | None, base: Accuracies | None, model: str) -> Iterator[Value]:
    """What the judge's shares are made of."""
    for prefix, found in (("", unlearned), ("base ", base)):
        for count in found.counts if found else ():
            yield Value(model, f"{prefix}{count.figure} hits", count.kind, count.prompt, "", count.hits)
            yield Value(model, f"{prefix}{count.figure} votes", count.kind, count.prompt, "", count.votes)


def _written(path: Path, text: str) -> Path:
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
    return path
