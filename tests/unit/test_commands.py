"""Commands of recipes and benchmarks start, and the comparison's page is made of its rows."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.contenders import CONTENDERS
from benchmarks.processes import in_turns

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
    known = {"task": task, "name": name, "seed": seed, "reached": True, "setting": {"steps": 25.0}, "curve": []}
    return {**figures, **known, "integrity": integrity, **interval}


def test_the_page_and_the_table_are_made_of_rows(tmp_path: Path) -> None:
    rows = [
        row(task, contender.name, seed, 0.1 * (index + 1) + 0.001 * seed)
        for task in ("object", "style")
        for index, contender in enumerate(CONTENDERS)
        for seed in range(2)
    ]
    page = report.page(rows, {"another seed": 0.2, "another prompt": 0.6}, {"steps": 25})
    assert all(f"| {contender.name} | 100.0% |" in page for contender in CONTENDERS)
    # The same in both figures, apart in I: every pair of methods that train.
    assert "**Holds**: methods that the Fréchet distance and CLIPScore cannot tell apart" in page
    assert "- object: OVW 0.1" in page
    report.write_csv(rows, tmp_path / "rows.csv")
    head, first, *_ = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    assert head.startswith("task,name,seed,reached,ua,ira,cra,integrity,interval low,interval high")
    assert first.startswith("object,OVW,0,True,1.0") and first.endswith(",steps 25")


def test_cases_are_measured_in_turns() -> None:
    measured: list[tuple[str, int]] = []

    def measure(case: str, number: int) -> int:
        measured.append((case, number))
        return len(measured)

    assert in_turns(["a", "b"], 2, measure) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert measured == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
