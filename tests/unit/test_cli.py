"""`unlearn evaluate` on the shipped model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from unlearning_core.attacks.examine import UNSEEN
from unlearning_core.cli import main
from unlearning_core.commands.shared import PromptFile, read_prompts
from unlearning_core.hosts.families import load
from unlearning_core.methods import METHODS
from unlearning_core.metrics import backbones
from unlearning_core.metrics.plan import BASE
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

FAST = ["--steps", "3", "--cfg", "3", "--width", "128", "--height", "128", "--seeds", "1", "--forget-seeds", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch of three steps, and prompts."""
    folder = tmp_path_factory.mktemp("evaluate")
    settings = Settings(steps=3, learning_rate=2e-3, width=128, height=128, runs=2, run_steps=3, batch_size=2)
    patch = unlearn(load(MODEL), METHODS["esd"](), Prompts(("a cat face",)), settings)
    patch.save(folder / "esd.safetensors")
    (folder / "prompts.txt").write_text("a car in noto style\na frog\n[forget]\na cat face in noto style\n")
    return folder


def command(folder: Path, *more: str, patch: str = "esd.safetensors", prompts: str = "prompts.txt") -> list[str]:
    files = ["--base", MODEL, "--patch", folder / patch, "--prompts", folder / prompts, "--out", folder / "out"]
    return ["evaluate", *map(str, files), *FAST, *more]


def test_evaluate_writes_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command(folder, "--judge", "nearest", "--cache", str(folder / "cache")))
    names = {"figures.json", "figures.csv", "leaderboard.md", "plot.png", "sheet.png"}
    assert {path.name for path in (folder / "out").iterdir()} == names
    [figures] = json.loads((folder / "out" / "figures.json").read_text())["models"]
    assert figures["name"] == "esd"
    assert 0 < figures["retention"]["integrity"] < 1
    assert figures["retention"]["noise_floor"] <= 1e-6
    assert figures["retention"]["accuracies"]["ua"] in (0, 1)
    assert f"{figures['retention']['integrity']:.4f}" in capsys.readouterr().out
    assert len(list((folder / "cache").rglob("*.safetensors"))) == 6


ATTACKS = ["plain", "embedding steps=1 starts=1", "relearning steps=1 rates=0.001"]


def attack(folder: Path, *more: str, attacks: Sequence[str] = ATTACKS) -> list[str]:
    _, *shared = command(folder)[: -len(("--forget-seeds", "1"))]
    return ["attack", *shared, "--examples", "1", *more, "--attacks", *attacks]


def test_attack_writes_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(attack(folder, "--out", str(folder / "attacks")))
    names = {"figures.json", "figures.csv", "attacks.md", "heat.png", "back.png"}
    assert {path.name for path in (folder / "attacks").iterdir()} == names
    figures = json.loads((folder / "attacks" / "figures.json").read_text())
    assert [model["name"] for model in figures["models"]] == [BASE, UNSEEN, "esd"]
    assert all([*model["attacks"]] == ["plain", "embedding", "relearning"] for model in figures["models"])
    assert (folder / "attacks" / "attacks.md").read_text() == capsys.readouterr().out


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 1
    return capsys.readouterr().err


def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "_url", lambda backbone: "http://127.0.0.1:9")  # torchvision's server has them
    (folder / "empty.txt").write_text("[forget]\na cat face\n")
    (folder / "odd.txt").write_text("[keep]\na car\n")
    shutil.copy(folder / "prompts.txt", folder / "fake.safetensors")
    assert "empty.txt: retain prompts: empty" in refused(command(folder, prompts="empty.txt"), capsys)
    assert "[keep] is no heading" in refused(command(folder, prompts="odd.txt"), capsys)
    assert "missing.txt" in refused(command(folder, prompts="missing.txt"), capsys)
    assert "there is no such file" in refused(command(folder, patch="missing"), capsys)
    assert "fake.safetensors: this is not a safetensors file" in refused(
        command(folder, patch="fake.safetensors"), capsys
    )
    assert "--seeds: 0" in refused(command(folder, "--seeds", "0"), capsys)
    assert "width: 100 pixels" in refused(command(folder, "--width", "100"), capsys)
    assert "cfg: inf is out of range" in refused(command(folder, "--cfg", "inf"), capsys)
    assert "--judge clip needs --labels" in refused(command(folder, "--judge", "clip"), capsys)
    (folder / "weighted.txt").write_text("a (car:1.5)\na frog\n[forget]\na cat face\n")
    assert "'(car:1.5)' is ComfyUI's syntax" in refused(command(folder, prompts="weighted.txt"), capsys)
    (folder / "long.txt").write_text(f"{'a car ' * 20}\na frog\n[forget]\na cat face\n")
    assert "42 tokens, and the text encoder reads 16" in refused(command(folder, prompts="long.txt"), capsys)
    (folder / "labels.txt").write_text("a photo of a {}: sofa, lamp\n")
    judged = command(folder, "--judge", "clip", "--labels", str(folder / "labels.txt"))
    assert "share nothing that the judge knows" in refused(judged, capsys)
    training = ["train", "--model", "not loaded", "--forget", "cat (animal)"]
    assert "prompt 'cat (animal)': '(animal)' is ComfyUI's syntax" in refused(training, capsys)
    assert "CLIP model: 'nothing'" in refused(command(folder, "--clip", "nothing"), capsys)
    assert "squeezenet1_1_features.safetensors" in refused(command(folder, "--backbone", "squeeze"), capsys)
    assert "this is no folder" in refused(command(folder, "--out", str(folder / "prompts.txt")), capsys)
    assert "attacks: 'none' is unknown" in refused(attack(folder, attacks=["none"]), capsys)
    assert "--examples: 0" in refused(attack(folder, "--examples", "0"), capsys)
    assert "--judge clip needs --labels" in refused(attack(folder, "--judge", "clip"), capsys)
    assert "weights-inception" in refused(command(folder, "--fid"), capsys)


@pytest.mark.parametrize("option", ["--seed=-5", f"--seed={2**64}", "--strength=nan"])
def test_numbers_have_a_range(folder: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(command(folder, option))
    assert "is out of range; choose " in capsys.readouterr().err


def test_pictures_have_the_size_of_the_training(folder: Path) -> None:
    sized = {"--width", "--height"}
    arguments = command(folder, "--steps", "1")
    plain = [word for index, word in enumerate(arguments) if not {word, arguments[index - 1]} & sized]
    main(plain)
    [figures] = json.loads((folder / "out" / "figures.json").read_text())["models"]
    assert figures["retention"]["settings"]["size"] == "128x128"


def test_prompts_under_headings(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a car\n\n[forget]\na cat\n[retain]\na house\n")
    assert read_prompts(path) == PromptFile(("a car", "a house"), ("a cat",))
