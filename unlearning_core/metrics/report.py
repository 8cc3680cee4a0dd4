"""Figures as files: JSON with everything, and one long CSV table that a spreadsheet or pandas reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..files import write_atomically
from .drawing import Plan
from .forgetting import Accuracies, Forgetting
from .quality import Quality
from .retention import Retention


class Value(NamedTuple):
    """A row of the CSV. `kind`, `prompt` and `seed` are empty for a figure over all pictures."""

    model: str
    figure: str
    kind: str
    prompt: str
    seed: int | str
    value: Any


def retention_values(retention: Retention, model: str = "") -> Iterator[Value]:
    """Every figure of the integrity metric, picture by picture, and its settings."""
    low, high = retention.interval or (None, None)
    overall: dict[str, Any] = {
        "integrity": retention.integrity,
        "interval low": low,
        "interval high": high,
        "median": retention.median,
        "worst": retention.worst.lpips,
        "ssim": retention.ssim,
        "psnr": retention.psnr,
        "noise floor": retention.noise_floor,
        "forget distance": retention.forget_distance,
    }
    yield from _overall(model, overall)
    if retention.accuracies and retention.base_accuracies:
        yield from _accuracy_values(retention.accuracies, retention.base_accuracies, model)
    for seed, mean in retention.per_seed.items():
        yield Value(model, "integrity", "retain", "", seed, mean)
    for kind, rows in (("retain", retention.retain), ("forget", retention.forget)):
        for row in rows:
            for figure, values in (("lpips", row.lpips), ("ssim", row.ssim), ("psnr", row.psnr)):
                for seed, value in zip(row.seeds, values, strict=True):
                    yield Value(model, figure, kind, row.prompt, seed, value)
    yield from _settings(retention.settings, model)


def forgetting_values(forgetting: Forgetting) -> Iterator[Value]:
    """UA, IRA, CRA and the judge's own accuracy, on the pictures of both models, prompt by prompt, and the settings."""
    yield from _accuracy_values(forgetting.unlearned, forgetting.base, "")
    yield from _pictures(forgetting.plan, "")
    yield from _settings(forgetting.settings, "")


def quality_values(quality: Quality, model: str = "") -> Iterator[Value]:
    """Every figure of the quality metrics, and their settings."""
    overall: dict[str, Any] = {
        "frechet alexnet": quality.frechet_alexnet,
        "fid": quality.fid,
        "cmmd": quality.cmmd,
    }
    for kind, score in (("retain", quality.clip_score), ("forget", quality.forget_clip_score)):
        if score:
            overall |= {f"clip score {kind}": score.unlearned, f"base clip score {kind}": score.base}
    yield from _overall(model, overall)
    yield from _pictures(quality.plan, model)
    yield from _settings(quality.settings, model)


def write_report(path: Path, summary: dict[str, Any], values: Sequence[Value]) -> list[Path]:
    """Writes `path` with .json and .csv for its suffix, each in one move; returns both paths."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(Value._fields)
    writer.writerows(values)
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return [_written(Path(f"{path}{suffix}"), text) for suffix, text in ((".json", text), (".csv", table.getvalue()))]


def _overall(model: str, figures: dict[str, Any]) -> Iterator[Value]:
    return (Value(model, name, "", "", "", value) for name, value in figures.items() if value is not None)


def _settings(settings: dict[str, Any], model: str) -> Iterator[Value]:
    return _overall(model, {f"setting {name}": value for name, value in settings.items()})


def _pictures(plan: Plan, model: str) -> Iterator[Value]:
    """How many pictures each prompt had."""
    for kind, prompts, seeds in (("retain", plan.retain, plan.seeds), ("forget", plan.forget, plan.forget_seeds)):
        for prompt in prompts:
            yield Value(model, "pictures", kind, prompt, "", len(seeds))


def _accuracy_values(unlearned: Accuracies, base: Accuracies, model: str) -> Iterator[Value]:
    for prefix, found in (("", unlearned), ("base ", base)):
        yield from _overall(model, {f"{prefix}{figure}": value for figure, value in found.shares.items()})
        for count in found.counts:
            yield Value(model, f"{prefix}{count.figure} hits", count.kind, count.prompt, "", count.hits)
            yield Value(model, f"{prefix}{count.figure} votes", count.kind, count.prompt, "", count.votes)


def _written(path: Path, text: str) -> Path:
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
    return path
