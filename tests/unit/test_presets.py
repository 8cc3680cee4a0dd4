"""Presets: how thoroughly to forget, in one word."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearning_core.cli import main
from unlearning_core.commands import train
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.methods import METHODS, ClosedForm
from unlearning_core.patch import Record
from unlearning_core.presets import CHOICES, PRESETS, START, Preset, preset_named
from unlearning_core.prompts import Prompts
from unlearning_core.recipe import Recipe
from unlearning_core.settings import CUSTOM, Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face",), ("a dog face",), ("a frog", "a car"))
OTHERS: dict[str, Any] = {  # another value of each setting
    "steps": 3,
    "learning_rate": 0.5,
    "alpha": 2.0,
    "protect": 0.5,
    "adversaries": 4,
    "relearning": 5,
    "retain_ratio": 2,
    "held_wordings": 3,
    "seed": 9,
    "width": 64,
    "height": 64,
    "batch_size": 2,
    "micro_batch": 1,
    "runs": 2,
    "run_steps": 3,
    "run_cfg": 1.0,
}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=[*PRESETS])
def test_a_preset_is_one_that_its_method_can_use(preset: Preset) -> None:
    settings = Settings(**preset.values(1))
    preset.objective.check_settings(settings)
    assert settings.preset == preset.name
    assert not {*preset.free} & {*preset.values(1)}
    assert {name: preset.values(1)[name] for name in preset.settings} == preset.settings
    assert preset.summary
    assert "\n" not in preset.summary


def test_presets_are_found_by_their_names() -> None:
    assert all(preset_named(name) is preset for name, preset in PRESETS.items())
    assert START in PRESETS
    assert preset_named(CUSTOM) is None
    with pytest.raises(ValueError, match="preset: 'utter' is unknown; choose one of quick, balanced, thorough, custom"):
        preset_named("utter")


def asked(monkeypatch: pytest.MonkeyPatch, *given: str) -> train.Request:
    """What `unlearn train` is asked to do, to forget a cat face."""
    return requested(monkeypatch, "--forget", "a cat face", *given)


def requested(monkeypatch: pytest.MonkeyPatch, *given: str) -> train.Request:
    """What `unlearn train` is asked to do."""
    requests: list[train.Request] = []
    monkeypatch.setattr(train, "run", lambda args: requests.append(train.parse(args)))
    main(["train", "--model", str(MODEL), *given])
    return requests[0]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=[*PRESETS])
def test_the_command_line_takes_a_preset(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(monkeypatch, "--preset", preset.name, "--width", "128")
    assert request.method == preset.objective
    assert request.settings == Settings(**{**preset.values(1), "width": 128})


def test_what_is_given_beside_a_preset_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(monkeypatch, "--preset", "balanced", "--steps", "7", "--option", "help_weight=1")
    assert request.settings == Settings(**{**PRESETS["balanced"].values(1), "steps": 7})
    assert asdict(request.method) == {"help_weight": 1.0}
    assert asked(monkeypatch, "--preset", "balanced", "--method", "sa").method == METHODS["sa"]()


@pytest.mark.parametrize("preset", PRESETS.values(), ids=[*PRESETS])
@pytest.mark.parametrize("forget", [1, 10, 11, 80])
def test_steps_grow_with_the_forget_prompts(preset: Preset, forget: int) -> None:
    steps = preset.values(forget)["steps"]
    assert steps == max(preset.values(1)["steps"], forget * preset.steps_each)
    assert {**preset.values(1), "steps": steps} == preset.values(forget)


def test_the_command_counts_the_forget_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recipe.toml"
    prompts = [f"prompt {number}" for number in range(20)]
    file.write_text(f'preset = "balanced"\nforget = {prompts}\n', encoding="utf-8")
    each = PRESETS["balanced"].steps_each
    given = [word for prompt in prompts for word in ("--forget", prompt)]
    assert requested(monkeypatch, "--preset", "balanced", *given).settings.steps == 20 * each
    assert requested(monkeypatch, "--recipe", str(file)).settings.steps == 20 * each
    assert Recipe.load(file).run.settings.steps == 20 * each
    assert asked(monkeypatch, "--recipe", str(file)).settings.steps == PRESETS["balanced"].values(1)["steps"]


def test_without_a_preset_all_is_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ([], ["--preset", CUSTOM]):
        request = asked(monkeypatch, *given)
        assert request.settings == Settings(weights=request.method.weights)


def test_a_recipe_may_name_a_preset_and_change_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('preset = "balanced"\nsteps = 7\n', encoding="utf-8")
    balanced = PRESETS["balanced"]
    request = asked(monkeypatch, "--recipe", str(file))
    assert request.method == balanced.objective
    assert request.settings == Settings(**{**balanced.values(1), "steps": 7})
    over = asked(monkeypatch, "--recipe", str(file), "--preset", "thorough")
    assert over.settings == Settings(**PRESETS["thorough"].values(1))


def test_a_recipe_of_an_unknown_preset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('preset = "utter"\n', encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["train", "--recipe", str(file)])
    assert "recipe.toml: preset: 'utter' is unknown" in capsys.readouterr().err


def test_a_recipe_over_another_takes_options_of_the_same_method_alone() -> None:
    other = Recipe(model="base", method="ovw", options={"help_weight": 3.0}, settings={"steps": 5, "seed": 1})
    assert Recipe(settings={"steps": 7}).over(other) == Recipe(
        model="base", method="ovw", options={"help_weight": 3.0}, settings={"steps": 7, "seed": 1}
    )
    assert Recipe(method="esd").over(other).options == {}


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


def test_the_patch_tells_the_preset_and_its_values(model: DiffusersModel, tmp_path: Path) -> None:
    quick = PRESETS["quick"]
    settings = Settings(**{**quick.values(1), "width": 128, "height": 128})
    unlearn(model, quick.objective, PROMPTS, settings).save(tmp_path / "patch.safetensors")
    record = Record.read(tmp_path / "patch.safetensors")
    assert (record.method, record.settings) == (quick.method, asdict(settings))
    assert record.settings["preset"] == "quick"
    assert record.wordings


@pytest.mark.parametrize("wordings", [0, 2])
@pytest.mark.parametrize("kind", [kind for kind in METHODS.values() if issubclass(kind, ClosedForm)])
def test_unused_settings_change_nothing(model: DiffusersModel, kind: type[ClosedForm], wordings: int) -> None:
    settings = Settings(weights=kind.weights, wordings=wordings, width=128, height=128)
    unused = kind.unused_settings(bool(wordings))
    changed = Settings(**{**asdict(settings), **{name: OTHERS[name] for name in unused}})
    method = kind(**({"tolerance": 0.1} if "tolerance" in {spec.name for spec in fields(kind)} else {}))
    first, second = (unlearn(model, method, PROMPTS, each).tensors for each in (settings, changed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "rank" not in unused  # which is refused, and so must be seen


def test_every_choice_is_told() -> None:
    assert [*CHOICES] == ["quick", "balanced", "thorough", CUSTOM]
