"""Figures as files: JSON with everything, and one long CSV table that a spreadsheet or pandas reads."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from .forgetting import Accuracies
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
        yield from accuracy_values(retention.accuracies, retention.base_accuracies, {}, model)
    for seed, mean in retention.per_seed.items():
        yield Value(model, "integrity", "retain", "", seed, mean)
    for kind, rows in (("retain", retention.retain), ("forget", retention.forget)):
        for row in rows:
            for figure, values in (("lpips", row.lpips), ("ssim", row.ssim), ("psnr", row.psnr)):
                for seed, value in zip(row.seeds, values, strict=True):
                    yield Value(model, figure, kind, row.prompt, seed, value)
    yield from _overall(model, {f"setting {name}": value for name, value in retention.settings.items()})


def accuracy_values(
    unlearned: Accuracies, base: Accuracies, settings: dict[str, Any], model: str = ""
) -> Iterator[Value]:
    """UA, IRA, CRA and the judge's own accuracy, on the pictures of both models, and the settings."""
    for prefix, shares in (("", unlearned), ("base ", base)):
        yield from _overall(model, {f"{prefix}{figure}": value for figure, value in asdict(shares).items()})
    yield from _overall(model, {f"setting {name}": value for name, value in settings.items()})


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
    yield from _overall(model, {f"setting {name}": value for name, value in quality.settings.items()})


def write_report(path: Path, summary: dict[str, Any], values: Sequence[Value]) -> list[Path]:
    """Writes `path` with .json and .csv for its suffix, each in one move; returns both paths."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(Value._fields)
    writer.writerows(values)
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    return [_written(Path(f"{path}{suffix}"), text) for suffix, text in ((".json", text), (".csv", table.getvalue()))]


def _overall(model: str, figures: dict[str, Any]) -> Iterator[Value]:
    return (Value(model, name, "", "", "", value) for name, value in figures.items() if value is not None)


def _written(path: Path, text: str) -> Path:
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
