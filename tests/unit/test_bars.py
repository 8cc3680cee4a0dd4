"""Bars of the command line: what they count, and where there are none."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from unlearning_core.cli import main
from unlearning_core.commands.bars import bar, moving
from unlearning_core.processes import Processes, sharing
from unlearning_core.progress import Progress, Reporter
from unlearning_core.tiny import MODEL

SIZE = ["--width", "128", "--height", "128"]
TRAIN = ["train", "--model", str(MODEL), "--method", "ovw", "--forget", "a cat face", "--retain", "a car", *SIZE]
TRAIN += ["--steps", "3", "--runs", "2", "--run-steps", "3", "--batch-size", "2"]
EVALUATE = ["--steps", "1", "--cfg", "3", "--seeds", "1", "--forget-seeds", "1", *SIZE]


class Terminal(io.StringIO):
    """Text that is sent to a terminal."""

    def isatty(self) -> bool:
        return True


class Second(Processes):
    """The second of two."""

    rank, count = 1, 2


def watched(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal that is stderr from here on; pytest sets its own after a fixture."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def last_bar(terminal: Terminal, doing: str) -> str:
    """As it was left."""
    [*_, last] = [line for line in terminal.getvalue().replace("\n", "\r").split("\r") if line.startswith(doing)]
    return last


def test_a_bar_has_share_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    with bar("drawing", "picture", 8) as shown:
        shown.update(4)
        shown.refresh()
    last = last_bar(terminal, "drawing")
    assert " 50%" in last and " 4/8 " in last and "picture/s" in last and "<" in last


def test_what_the_library_tells_moves_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    with bar("looking", "step") as shown:
        report = Reporter(moving(shown), 3)
        report.begin("training", 3)
        report()
        report(loss=0.25, figures={"weights": 7.0})
        moving(shown)(Progress(3, 3))
        assert (shown.n, shown.total) == (3, 3)
    assert "loss=0.25" in last_bar(terminal, "training") and "weights=7" in last_bar(terminal, "training")


def test_only_the_main_process_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    with sharing(Second()), bar("drawing", "picture", 8) as shown:
        shown.update(8)
    assert terminal.getvalue() == ""


def test_in_a_log_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("drawing", "picture", 8) as shown:
        moving(shown)(Progress(1, 8, loss=0.5))
    assert capsys.readouterr().err == ""


def test_every_command_ends_with_a_full_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    patch, prompts = tmp_path / "patch.safetensors", tmp_path / "prompts.txt"
    prompts.write_text("a car\na frog\n[forget]\na cat face\n", encoding="utf-8")
    main([*TRAIN, "--out", str(patch)])
    assert "100%" in last_bar(terminal, "training")

    files = ["--base", str(MODEL), "--patch", str(patch), "--prompts", str(prompts), "--out", str(tmp_path / "out")]
    main(["evaluate", *files, *EVALUATE])
    assert " 8/8 " in last_bar(terminal, "drawing")  # three of each model, and two again
    (kept, *_) = (tmp_path / "out" / "pictures").rglob("*.safetensors")
    kept.unlink()
    main(["evaluate", *files, *EVALUATE, "--resume"])
    assert "100%" in last_bar(terminal, "drawing")

    low_rank = [str(patch), str(tmp_path / "low.safetensors"), "--rank", "1"]
    main(["export", *low_rank, "--base", str(MODEL), "--pictures", "1", "--steps", "1", *SIZE])
    assert "100%" in last_bar(terminal, "decomposing")
    assert "100%" in last_bar(terminal, "drawing")
