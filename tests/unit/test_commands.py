"""Commands of recipes and benchmarks start, and the comparison's page is made of its rows."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import report, resistance
from benchmarks.bootstrap import difference, is_clear, means
from benchmarks.contenders import CONTENDERS
from benchmarks.processes import in_turns
from unlearning_core.metrics.plan import BASE
from unlearning_core.metrics.statistics import Interval
from unlearning_core.prompts import quoted

ROOT = Path(__file__).parents[2]
COMMANDS = [
    f"{folder.replace('/', '.')}.{path.stem}"
    for folder in ("benchmarks", "recipes/tiny")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", COMMANDS)
def test_command_shows_its_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        import_module(name).main()
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def row(task: str, name: str, seed: int, integrity: float) -> dict[str, Any]:
    figures = dict.fromkeys(report.COLUMNS, 1.0) | {"base clip score retain": 80.0}
    interval = {"interval low": integrity - 0.01, "interval high": integrity + 0.01}
    resampled = {figure: [1.0, 1.0] for figure in report.BLIND} | {"integrity": [integrity - 0.001, integrity + 0.001]}
    curve = [{"ua": share, "integrity": share * integrity} for share in (0.5, 1.0)]
    known = {
        "task": task,
        "name": name,
        "seed": seed,
        "device": "cpu",
        "reached": True,
        "setting": {"steps": 25.0},
        "curve": curve,
    }
    return {**figures, **known, "integrity": integrity, **interval, "resampled": resampled}


def test_the_page_and_the_table_are_made_of_rows(tmp_path: Path) -> None:
    rows = [
        row(task, contender.name, seed, 0.1 * (index + 1) + 0.001 * seed)
        for task in ("object", "style")
        for index, contender in enumerate(CONTENDERS)
        for seed in range(2)
    ]
    report.write_report(rows, {"another seed": 0.2, "another prompt": 0.6}, {"steps": 25}, tmp_path)
    page = (tmp_path / "integrity.md").read_text(encoding="utf-8")
    assert all(f"| {contender.name} | 100.0% |" in page for contender in CONTENDERS)
    # The same in all other figures, apart in I: every pair of methods.
    count = len([contender for contender in CONTENDERS if report.NO_HELP not in contender.name])
    assert f"{count * (count - 1)} pairs of trained methods differ clearly in I, and in neither" in page
    assert "0 pairs differ clearly in one of these and not in I" in page
    assert "**Holds**: methods that Fréchet distance and CLIPScore cannot tell apart" in page
    assert "- object: OVW 0.1" in page
    assert "- style: I of OVW and ESD-x, 0.1005 and " in page
    head, first, *_ = (tmp_path / "integrity.csv").read_text(encoding="utf-8").splitlines()
    assert head.startswith("task,name,seed,reached,ua,ira,cra,integrity,interval low,interval high")
    assert first.startswith("object,OVW,0,True,1.0") and first.endswith(",steps 25")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "integrity-methods.png",
        "integrity-tradeoff.png",
    }


def test_intervals_are_of_differences_over_the_same_resamples() -> None:
    generator = torch.Generator().manual_seed(0)
    easy = torch.rand(24, 2, generator=generator)  # prompts differ much more than methods do
    resampled = {"integrity": means(easy)}, {"integrity": means(easy + 0.01)}
    low, high = difference(resampled[:1], resampled[1:], "integrity")
    assert low == pytest.approx(-0.01, abs=1e-5) and high == pytest.approx(-0.01, abs=1e-5)
    assert is_clear(Interval(low, high)) and not is_clear(Interval(-1.0, 1.0))
    alone = means(easy)
    assert max(alone) - min(alone) > 0.05


def resistance_row(name: str, seed: int, integrity: float, share: float) -> dict[str, Any]:
    wordings = [f"wording: {quoted(prompt)}" for prompt in (*resistance.TASK.framed, *resistance.TASK.names)]
    settings = [
        f"{name}: {each}"
        for name, attack in resistance.ATTACKS.items()
        if name != "wording"
        for each in attack.settings(resistance.ATTACK_TASK)
    ]
    return {"name": name, "seed": seed, "integrity": integrity, "shares": dict.fromkeys([*wordings, *settings], share)}


def test_the_page_of_attacks_is_made_of_rows(tmp_path: Path) -> None:
    rows = [resistance_row(BASE, 0, 0.0, 1.0), *(resistance_row("OVW", seed, 0.02, 0.25 * seed) for seed in range(3))]
    table = resistance.table(rows)
    assert "| OVW | 0.0200 | 25.0% | 25.0% |" in table
    resistance.write_csv(rows, tmp_path / "rows.csv")
    assert len((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()) == 5
    resistance.draw_frontier(rows, tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").stat().st_size > 0
    wordings = set(resistance.TASK.framed) | set(resistance.TASK.names)
    assert len(wordings) == 20 and not wordings & {*resistance.TASK.prompts.forget, *resistance.TASK.prompts.retain}


def test_cases_are_measured_in_turns() -> None:
    measured: list[tuple[str, int]] = []

    def measure(case: str, number: int) -> int:
        measured.append((case, number))
        return len(measured)

    assert in_turns(["a", "b"], 2, measure) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert measured == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
