"""The list of figures reaches every table, file and plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics import figure as figures
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.evaluation import Candidate, Evaluation, evaluate
from unlearning_core.metrics.figure import FIGURES, Figure, Measured, figure_named, values_of
from unlearning_core.metrics.forgetting import Accuracies
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import Plan, PromptSeed
from unlearning_core.metrics.quality import Networks
from unlearning_core.metrics.retention import Comparison
from unlearning_core.reports import tables
from unlearning_core.reports.files import comparison_report, quality_report, retention_report
from unlearning_core.reports.tables import figure_table, leaderboard, retention_page

PLAN = Plan.of(["a car", "a house"], ["a frog"], 0, 1, 1)


def painted(prompt_seeds: Sequence[PromptSeed], change: float = 0.0) -> Tensor:
    """A picture of noise for each prompt, mixed with grey."""
    generators = (torch.Generator().manual_seed(len(prompt)) for prompt, _ in prompt_seeds)
    pictures = [torch.rand(64, 64, 3, generator=generator) for generator in generators]
    return torch.lerp(torch.stack(pictures), torch.tensor(0.5), change)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    lpips = Lpips("alex")
    models = {"changed": Candidate(partial(painted, change=0.5), {})}
    networks = Networks(lpips, Clip.load(SHIPPED_FOLDER))
    [found] = evaluate(painted, models, Comparison(lpips, PLAN), networks, {}, painted)
    return found


def test_keys_are_unique() -> None:
    keys = [figure.key for figure in FIGURES]
    assert len(set(keys)) == len(keys)


def test_what_was_measured_is_in_every_place(evaluation: Evaluation) -> None:
    values = values_of(evaluation.measured)
    report = comparison_report([evaluation])
    assert report.summary["models"][0]["figures"] == values
    overall = {row.figure: row.value for row in report.values if not (row.kind or row.prompt or row.seed)}
    assert overall.items() >= values.items()
    known = [figure for figure in FIGURES if figure.of(evaluation.measured) is not None]
    rows = [row.split(" | ")[0].removeprefix("| ") for row in figure_table(evaluation.measured).splitlines()[2:]]
    assert rows == [figure.label for figure in known if figure.in_table]
    columns = leaderboard([evaluation]).splitlines()[0].strip("| ").split(" | ")
    assert columns == ["model", *(figure.column for figure in known if figure.in_leaderboard)]


def test_parts_of_a_measurement_give_their_own_figures(evaluation: Evaluation) -> None:
    retention, quality = retention_report(evaluation.retention), quality_report(evaluation.quality)
    assert "integrity" in retention.summary["figures"] and "cmmd" not in retention.summary["figures"]
    assert "cmmd" in quality.summary["figures"] and "integrity" not in quality.summary["figures"]


def test_a_new_figure_needs_one_row(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    def share_moved(measured: Measured) -> float | None:
        if measured.retention is None:
            return None
        distances = [value for row in measured.retention.retain for value in row.lpips]
        return sum(value > 0.01 for value in distances) / len(distances)

    added = (*FIGURES, Figure("moved", "moved", "{:.0%}", False, share_moved, "LPIPS above 0.01", in_leaderboard=True))
    monkeypatch.setattr(figures, "FIGURES", added)
    monkeypatch.setattr(tables, "FIGURES", added)
    assert "| moved (LPIPS above 0.01, lower is better) | 100% |" in retention_page(evaluation.retention)
    assert "| moved ↓ |" in leaderboard([evaluation])
    report = comparison_report([evaluation])
    assert report.summary["models"][0]["figures"]["moved"] == 1
    assert ("changed", "moved", 1) in [(row.model, row.figure, row.value) for row in report.values]


def test_numbers_of_the_base_and_of_intervals_have_keys_of_their_own(evaluation: Evaluation) -> None:
    measured = Measured(accuracies=Accuracies(0.9, 0.8, None, 0.5), base_accuracies=Accuracies(0.1, 1.0, None, 1.0))
    values = values_of(measured)
    assert values == {"ua": 0.9, "base ua": 0.1, "ira": 0.8, "base ira": 1.0, "base right": 1.0, "right": 0.5}
    assert figure_named("ua").cell(measured) == "90.0% (base 10.0%)"
    interval = evaluation.retention.interval
    assert interval is not None
    assert values_of(evaluation.measured)["interval low"] == interval.low


def test_infinite_values_are_shown_and_not_written() -> None:
    figure = Figure("ratio", "ratio", "{:.1f}", True, lambda measured: math.inf)
    assert figure.cell(Measured()) == "infinite"
    assert figure.numbers(Measured()) == {}
