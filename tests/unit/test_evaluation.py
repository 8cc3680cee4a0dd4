"""Several models side by side: leaderboard, plot, sheet and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics.cache import PictureCache
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.evaluation import Candidate, Evaluation, evaluate
from unlearning_core.metrics.forgetting import Accuracies
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import Draw, Plan, PromptSeed
from unlearning_core.metrics.quality import Networks
from unlearning_core.metrics.retention import Comparison, count_pictures
from unlearning_core.reports.files import comparison_report, write_report
from unlearning_core.reports.plots import comparison_sheet, tradeoff_plot
from unlearning_core.reports.tables import comparison_page, leaderboard
from unlearning_core.tiny.judge import Judge as NearestPicture

RETAIN = ["a car in noto style", "a house", "a bear"]
SETTINGS = {"model": "painted", "steps": 25}


def painted(prompt_seeds: Sequence[PromptSeed], change: float = 0.0) -> Tensor:
    """A picture of noise for each prompt and seed, mixed with grey."""
    pictures = [torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(seed)) for _, seed in prompt_seeds]
    return torch.lerp(torch.stack(pictures), torch.tensor(0.5), change)


MODELS = {"far": partial(painted, change=0.8), "near": partial(painted, change=0.2)}
PLAN = Plan.of(RETAIN, ["a frog"], 5, 2, 3)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks(Lpips("alex"), Clip.load(SHIPPED_FOLDER))


def evaluated(networks: Networks, models: Mapping[str, Draw], base: Draw = painted, **options: Any) -> list[Evaluation]:
    candidates = {name: Candidate(draw, {"patch": f"digest of {name}"}) for name, draw in models.items()}
    given: dict[str, Any] = {"plan": PLAN, "settings": SETTINGS, "judge": None, "base_again": painted, **options}
    comparison = Comparison(networks.alexnet, given.pop("plan"), given.pop("judge"))
    return evaluate(base, candidates, comparison, networks, **given)


@pytest.fixture(scope="module")
def evaluations(networks: Networks) -> list[Evaluation]:
    return evaluated(networks, MODELS)


def test_the_leaderboard_has_the_least_integrity_first(evaluations: list[Evaluation]) -> None:
    head, _, *rows = leaderboard(evaluations).split("\n\n")[0].splitlines()
    known = ["model", "I ↓", "95 % interval", "forget distance ↑", "FD (AlexNet) ↓", "CMMD ↓", "CLIPScore ↑"]
    assert [column for column in head.strip("| ").split(" | ") if column in known] == known
    assert [row.split(" | ")[0] for row in rows] == ["| near", "| far"]
    assert f"{evaluations[0].retention.integrity:.4f}" in rows[0]
    assert "model painted, steps 25" in leaderboard(evaluations)
    assert "digest of" not in leaderboard(evaluations)


def test_the_base_is_drawn_and_judged_once(networks: Networks, tmp_path: Path) -> None:
    drawn: list[PromptSeed] = []
    judged: list[int] = []

    def counting(prompt_seeds: Sequence[PromptSeed], change: float) -> Tensor:
        drawn.extend(prompt_seeds)
        return painted(prompt_seeds, change)

    class Judge:
        name, domains = "all frogs", {"thing": ("frog", "car")}

        def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
            judged.append(len(pictures))
            return {domain: ["frog"] * len(pictures) for domain in domains}

    cache = PictureCache(tmp_path)
    changes = {"base": 0.0, "far": 0.8, "near": 0.2}
    base, *models = (
        cache.drawing(partial(lambda name, prompt: {"model": name}, name), partial(counting, change=change))
        for name, change in changes.items()
    )
    again = partial(counting, change=0.0)
    found = evaluated(networks, dict(zip(MODELS, models, strict=True)), base, judge=Judge(), base_again=again)
    assert len(drawn) == count_pictures(PLAN, models=2)
    assert sum(judged) == 3 * len(PLAN.prompt_seeds)
    assert found[0].retention.base_accuracies == found[1].retention.base_accuracies == Accuracies(0, 0, None, 3 / 5)


def test_a_nan_picture_is_named_after_its_model(networks: Networks) -> None:
    def broken(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        return painted(prompt_seeds) * torch.nan

    with pytest.raises(ValueError, match="sa: its picture of 'a car in noto style' with seed 5 has NaN"):
        evaluated(networks, MODELS | {"sa": broken})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {"base model": painted}}, "'base model' stands for the base itself"),
        ({"plan": Plan.of(["a car"], [], 0, 1, 1)}, "needs two pictures"),
        (
            {"judge": NearestPicture.load(), "plan": Plan.of(RETAIN, ["a sofa"], 0, 1, 1)},
            "share nothing that the judge",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_drawing(
    networks: Networks, options: dict[str, Any], message: str
) -> None:
    def not_drawn(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        pytest.fail("drawn")

    with pytest.raises(ValueError, match=message):
        evaluated(networks, **{"models": MODELS, **options}, base=not_drawn, base_again=not_drawn)


def test_a_bar_in_a_name_does_not_break_the_table(networks: Networks) -> None:
    row = leaderboard(evaluated(networks, {r"a|b\c": painted})).splitlines()[2]
    assert row.startswith(r"| a\|b\\c | ") and "| 0.0000 |" in row


def test_the_plot_has_a_point_for_each_model(evaluations: list[Evaluation]) -> None:
    both, one = tradeoff_plot(evaluations), tradeoff_plot(evaluations[:1])
    assert both.shape == one.shape == (1, 624, 832, 3)
    colours = [{tuple(pixel) for pixel in plot.view(-1, 3).mul(255).byte().tolist()} for plot in (both, one)]
    blue, orange = (31, 119, 180), (255, 127, 14)  # matplotlib's first two
    assert {blue, orange} <= colours[0]
    assert orange not in colours[1]


def test_the_sheet_has_prompts_down_and_models_across(evaluations: list[Evaluation]) -> None:
    sheet = comparison_sheet(painted, MODELS, evaluations)
    assert sheet.shape == (1, 2 * 28 + 24 + 2 * (192 + 46), 2 * 28 + 2 * (3 * 192 + 2 * 6) + 36, 3)
    one = comparison_sheet(painted, MODELS, evaluations[:1])
    assert one.shape[2] == 2 * 28 + 2 * (2 * 192 + 6) + 36


def test_the_page_says_which_model_moves_other_pictures_least(evaluations: list[Evaluation]) -> None:
    best, second = sorted(evaluations, key=lambda each: each.retention.integrity)
    told = comparison_page(evaluations).split("\n\n")[0]
    assert told.startswith(
        f"{best.name} moves other pictures least, by {best.retention.integrity:.3f}; next is {second.name}"
    )
    assert comparison_page(evaluations[:1]) == leaderboard(evaluations[:1])


def test_every_figure_and_setting_is_in_the_files(evaluations: list[Evaluation], tmp_path: Path) -> None:
    paths = write_report(tmp_path / "new" / "figures", comparison_report(evaluations))
    assert [path.name for path in paths] == ["figures.json", "figures.csv"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    read = json.loads(paths[0].read_text(encoding="utf-8"))["models"][0]
    assert read["retention"]["integrity"] == evaluations[0].retention.integrity
    assert read["retention"]["settings"]["steps"] == 25
    assert read["quality"]["settings"]["patch"] == read["retention"]["settings"]["patch"] == "digest of near"
    rows = list(csv.DictReader(paths[1].open(encoding="utf-8", newline="")))
    [seed_six] = [
        row["value"]
        for row in rows
        if (row["model"], row["figure"], row["prompt"], row["seed"]) == ("near", "lpips", "a frog", "6")
    ]
    assert float(seed_six) == evaluations[0].retention.forget[0].lpips[1]
    assert {"integrity", "psnr", "setting patch", "pictures", "frechet alexnet", "cmmd", "clip score forget"} <= {
        row["figure"] for row in rows
    }
