"""Several models side by side: leaderboard, plot, sheet and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.drawing import Shot
from unlearning_core.metrics.evaluation import Evaluation, evaluate, leaderboard, report
from unlearning_core.metrics.figures import comparison_sheet, tradeoff_plot
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.report import write_report

RETAIN = ["a car in noto style", "a house", "a bear"]
SETTINGS = {"model": "painted", "steps": 25}


def painted(shots: Sequence[Shot], change: float = 0.0) -> Tensor:
    """A picture of noise for each shot, mixed with grey."""
    pictures = [torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(seed)) for _, seed in shots]
    return torch.lerp(torch.stack(pictures), torch.tensor(0.5), change)


MODELS = {"far": partial(painted, change=0.8), "near": partial(painted, change=0.2)}


@pytest.fixture(scope="module")
def evaluations() -> list[Evaluation]:
    lpips = Lpips("alex")
    return evaluate(
        painted,
        MODELS,
        lpips,
        lpips,
        RETAIN,
        ["a frog"],
        range(2),
        range(5, 8),
        SETTINGS,
        clip=Clip.load(SHIPPED_FOLDER),
    )


def test_the_leaderboard_has_the_least_integrity_first(evaluations: list[Evaluation]) -> None:
    head, _, *rows = leaderboard(evaluations).split("\n\n")[0].splitlines()
    assert head == "| model | I ↓ | 95 % interval | forget distance ↑ | FD (AlexNet) ↓ | CMMD ↓ | CLIPScore ↑ |"
    assert [row.split(" | ")[0] for row in rows] == ["| near", "| far"]
    assert f"{evaluations[0].retention.integrity:.4f}" in rows[0]
    assert "model painted, steps 25" in leaderboard(evaluations)


def test_the_plot_has_a_point_for_each_model(evaluations: list[Evaluation]) -> None:
    both, one = tradeoff_plot(evaluations), tradeoff_plot(evaluations[:1])
    assert both.shape == one.shape == (1, 624, 832, 3)
    colours = [{tuple(pixel) for pixel in plot.view(-1, 3).mul(255).byte().tolist()} for plot in (both, one)]
    blue, orange = (31, 119, 180), (255, 127, 14)  # matplotlib's first two
    assert {blue, orange} <= colours[0]
    assert orange not in colours[1]


def test_the_sheet_has_prompts_down_and_models_across(evaluations: list[Evaluation]) -> None:
    sheet = comparison_sheet(painted, MODELS, evaluations)
    assert sheet.shape == (1, 2 * 28 + 24 + 4 * (192 + 46), 2 * 28 + 3 * 192 + 2 * 6, 3)
    one = comparison_sheet(painted, MODELS, evaluations[:1])
    assert one.shape[2] == 2 * 28 + 2 * 192 + 6


def test_every_figure_and_setting_is_in_the_files(evaluations: list[Evaluation], tmp_path: Path) -> None:
    summary, values = report(evaluations)
    paths = write_report(tmp_path / "new" / "figures", summary, values)
    assert [path.name for path in paths] == ["figures.json", "figures.csv"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    read = json.loads(paths[0].read_text(encoding="utf-8"))["models"][0]
    assert read["retention"]["integrity"] == evaluations[0].retention.integrity
    assert read["retention"]["settings"]["steps"] == 25
    rows = list(csv.DictReader(paths[1].open(encoding="utf-8", newline="")))
    [seed_six] = [
        row["value"]
        for row in rows
        if (row["model"], row["figure"], row["prompt"], row["seed"]) == ("near", "lpips", "a frog", "6")
    ]
    assert float(seed_six) == evaluations[0].retention.forget[0].lpips[1]
    assert {"integrity", "psnr", "setting steps", "frechet alexnet", "cmmd", "clip score forget"} <= {
        row["figure"] for row in rows
    }
