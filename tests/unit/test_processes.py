"""Several processes share a run: the same figures, the same patch, and one line when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import together
import torch
from downloads import ROOT
from hypothesis import given
from hypothesis import strategies as some
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.processes import LAUNCH
from unlearning_core.cli import main
from unlearning_core.hosts import pictures
from unlearning_core.hosts.families import load
from unlearning_core.launched import Launched
from unlearning_core.methods import METHODS, GradientMethod, Method
from unlearning_core.processes import Processes, Tensors
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

FILES = {"figures.json", "figures.csv", "leaderboard.md", "plot.png", "sheet.png"}
FAST = ["--steps", "2", "--cfg", "3", "--width", "128", "--height", "128", "--seeds", "5", "--forget-seeds", "3"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As each of several processes has, for the same sums in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Apart(Launched):
    """One of several processes that never meet: what another sends is its number."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def wait(self) -> None:
        pass

    def _sent(self, tensors: Tensors) -> Tensors:
        return tensors

    def _received(self, owner: int) -> Tensors:
        return {"owner": torch.tensor(owner)}


@given(items=some.integers(0, 40), count=some.integers(1, 9))
def test_every_item_is_one_processs_work_and_comes_in_order(items: int, count: int) -> None:
    worked: list[int] = []

    def work(item: int) -> dict[str, Tensor]:
        worked.append(item)
        return {"owner": torch.tensor(item % count)}

    for rank in range(count):
        found = list(Apart(rank, count).ordered(range(items), work))
        assert [int(each["owner"]) for each in found] == [item % count for item in range(items)]
    assert sorted(worked) == list(range(items))


@given(size=some.integers(0, 300), count=some.integers(1, 40))
def test_every_row_of_a_batch_is_one_processs_in_order(size: int, count: int) -> None:
    rows = list(range(size))
    parts = [rows[Apart(rank, count).rows(size)] for rank in range(count)]
    assert [row for part in parts for row in part] == rows
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert rows[Processes().rows(size)] == rows


def test_two_processes_train_by_the_same_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    running = together.start([together.__file__, str(folders[1])])
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    together.train_all(folders[0])
    assert [status for status, _, _ in together.ended(running)] == [0, 0]
    trained = {name for name, kind in METHODS.items() if issubclass(kind, GradientMethod)}
    assert {path.stem for path in folders[0].iterdir()} == {*trained, together.RELEARNED}
    for path in folders[0].iterdir():
        one, two = values(path), values(folders[1] / path.name)
        assert float((one - two).norm() / one.norm()) < 1e-5, path.stem


def test_parts_of_a_batch_give_the_gradients_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 2, 2 and 1; but for elements whose saliency is the threshold's up to rounding, which SalUn may mask."""
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    folders = [tmp_path / "whole", tmp_path / "parts"]
    for folder, micro_batch in zip(folders, (0, 2), strict=True):
        folder.mkdir()
        together.train_all(folder, micro_batch)
    for path in folders[1].iterdir():
        one, other = values(folders[0] / path.name), values(path)
        assert 0 < float((one - other).norm() / one.norm()) < (1e-2 if path.stem == "salun" else 1e-5), path.stem


@pytest.mark.parametrize("kind", [kind for kind in METHODS.values() if not kind.in_parts])
def test_parts_that_a_method_cannot_use(kind: type[Method]) -> None:
    with pytest.raises(ValueError, match="set micro_batch to 0"):
        unlearn(load(MODEL), kind(), Prompts(("a cat face",)), Settings(micro_batch=1))


def test_two_processes_train_the_patch_of_one_with_the_same_parts(tmp_path: Path) -> None:
    """With Adam: one process computes those rows at a time that each of two has."""
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        running = together.start([together.__file__, str(folder), "--halves"], count)
        assert {status for status, _, _ in together.ended(running)} == {0}
    one, two = (values(tmp_path / count / "halves.safetensors") for count in "12")
    assert torch.equal(one, two)
    assert one.norm() > 0


def values(path: Path) -> Tensor:
    """All of a patch's, in a row."""
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(load_file(path).items())])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch and prompts."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "prompts.txt").write_text(
        "a car in noto style\na frog\na house\na bear\n[forget]\na cat face in noto style\na cat face\n"
    )
    prompts = ["--forget", "a cat face", "--overwrite", "a dog face", "--retain", "a frog"]
    files = ["--model", "unlearning_core/tiny/model", "--out", str(folder / "uce.safetensors")]
    main(["train", "--method", "uce", *files, *prompts, "--width", "128", "--height", "128"])
    return folder


def command(folder: Path, out: Path, *more: str) -> list[str]:
    files = {"--base": "unlearning_core/tiny/model", "--patch": folder / "uce.safetensors"}
    files |= {"--prompts": folder / "prompts.txt", "--out": out}
    return ["evaluate", *(str(part) for pair in files.items() for part in pair), "--judge", "nearest", *FAST, *more]


def figures(out: Path) -> Any:
    return json.loads((out / "figures.json").read_text(encoding="utf-8"))


def pictures_in(out: Path) -> set[str]:
    return {path.name for path in out.rglob("pictures/??/*.safetensors")}


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """What one process makes of it."""
    out = folder / "alone"
    main(command(folder, out))
    return out


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The pictures that are drawn in this process."""
    seen: list[Any] = []
    draw_batch = pictures._draw_batch

    def counting(model: Any, prompt_seeds: Sequence[Any], sampling: Any) -> Tensor:
        seen.extend(prompt_seeds)
        return draw_batch(model, prompt_seeds, sampling)

    monkeypatch.setattr(pictures, "_draw_batch", counting)
    return seen


def test_two_launched_processes_find_the_same_figures(folder: Path, alone: Path) -> None:
    out = folder / "two"
    launch = [*LAUNCH, "--num_processes=2", "-m", "unlearning_core.cli", *command(folder, out)]
    run = subprocess.run(
        launch, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("| uce |") == 1
    assert {path.name for path in out.iterdir()} == FILES | {"pictures"}
    assert figures(out) == figures(alone)
    assert (out / "figures.csv").read_bytes() == (alone / "figures.csv").read_bytes()
    assert pictures_in(out) == pictures_in(alone)


def test_a_lost_process_ends_the_run_and_resuming_draws_the_rest(folder: Path, alone: Path, drawn: list[Any]) -> None:
    out, lost = folder / "lost", 0
    running = together.start(["-m", "unlearning_core.cli", *command(folder, out)])
    while len(pictures_in(out)) < 20 and running[lost].poll() is None:
        time.sleep(0.01)
    running[lost].send_signal(signal.SIGKILL)
    survivor = together.ended(running)[1 - lost]
    assert survivor[0] == 1
    [line] = [line for line in survivor[2].splitlines() if "Warning" not in line]
    assert line.startswith("unlearn evaluate: another process of this run was lost; start the same command again")
    assert {path.name for path in out.iterdir()} <= {"pictures"}
    assert not [path for path in out.rglob("*.partial") if f"-{running[1 - lost].pid}-" in path.name]

    present = len(pictures_in(out))
    main(command(folder, out, "--resume"))
    assert present > 0 and len(drawn) < 60
    assert figures(out) == figures(alone)
    assert not list(out.rglob("*.partial"))


def test_resuming_a_complete_evaluation_draws_nothing_but_the_noise_floor(
    folder: Path, alone: Path, drawn: list[Any]
) -> None:
    before = figures(alone)
    main(command(folder, alone, "--resume"))
    assert len(drawn) == 4  # the base again, which is never kept
    assert figures(alone) == before


def test_a_missing_picture_is_drawn_beside_the_same_ones(folder: Path, alone: Path, drawn: list[Any]) -> None:
    before = figures(alone)
    next(alone.rglob("pictures/??/*.safetensors")).unlink()
    main(command(folder, alone, "--resume"))
    assert len(drawn) <= 16 + 4
    assert figures(alone) == before


def test_pictures_of_other_settings_are_not_mixed_in(folder: Path, alone: Path, drawn: list[Any]) -> None:
    main(command(folder, folder / "other", "--steps", "1", "--cache", str(alone / "pictures")))
    assert len(drawn) == 2 * 26 + 4


def test_an_error_in_every_process_is_one_line(folder: Path) -> None:
    running = together.start(["-m", "unlearning_core.cli", *command(folder, folder / "bad", "--width", "100")])
    (first, _, line), (second, _, nothing) = together.ended(running)
    assert (first, second) == (1, 1)
    assert line.count("\n") == 1 and line.startswith("unlearn evaluate: width: 100 pixels")
    assert not nothing


def test_one_process_imports_no_launcher() -> None:
    code = (
        "import sys, unlearning_core.cli, unlearning_core.metrics.evaluation as e; print('accelerate' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
