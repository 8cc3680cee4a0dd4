"""Recipes: `unlearn train` from a TOML file, and the one that it writes beside a patch."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from unlearning_core.cli import main
from unlearning_core.commands import train
from unlearning_core.methods import METHODS, Method
from unlearning_core.methods.ovw import Ovw
from unlearning_core.patch import Record
from unlearning_core.prompts import DEFAULT_RETAIN, Prompts
from unlearning_core.recipe import SETTINGS, Recipe, recipe_path, recorded, training
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL

SMALLEST: dict[str, Any] = {
    "steps": 2,
    "width": 64,
    "height": 64,
    "runs": 1,
    "run_steps": 2,
    "batch_size": 1,
    "learning_rate": 2e-3,
}
RECIPE = Recipe(
    model=str(MODEL),
    method="ovw",
    forget=["a cat face => a dog face", "a frog"],
    retain=["a car"],
    options={"help_weight": 3},
    settings=SMALLEST,
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.text(), encoding="utf-8")
    return path


def trained(recipe: Path, out: Path, *more: str) -> Record:
    """The record of the patch that a recipe makes."""
    main(["train", "--recipe", str(recipe), "--out", str(out), *more])
    return Record.read(out)


def test_a_written_recipe_repeats_the_patch_to_the_last_bit(recipe: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    record = trained(recipe, first)
    assert record.settings == asdict(Settings(**SMALLEST, weights=METHODS["ovw"].weights))
    assert (record.forget, record.overwrite) == (["a cat face", "a frog"], ["a dog face", ""])
    assert (record.method, record.options, record.retain) == ("ovw", {"help_weight": 3.0}, ["a car"])
    trained(recipe_path(first), second)
    assert second.read_bytes() == first.read_bytes()
    assert recipe_path(second).read_bytes() == recipe_path(first).read_bytes()


def test_retain_prompts_that_nobody_gave_are_those_that_the_model_reads(tmp_path: Path) -> None:
    """The shipped model's text encoder has room for 16 tokens."""
    path, out = tmp_path / "recipe.toml", tmp_path / "patch.safetensors"
    path.write_text(replace(RECIPE, retain=None).text(), encoding="utf-8")
    retain = trained(path, out).retain
    assert retain and set(retain) < set(DEFAULT_RETAIN)
    assert Recipe.load(recipe_path(out)).retain == retain
    path.write_text(replace(RECIPE, retain=["a frog"]).text(), encoding="utf-8")  # which is to be forgotten
    assert trained(path, out).retain == retain


def test_pictures_that_nobody_sized_have_the_models_own_size(tmp_path: Path) -> None:
    path, out = tmp_path / "recipe.toml", tmp_path / "patch.safetensors"
    sized = {name: value for name, value in SMALLEST.items() if name != "width"}
    path.write_text(replace(RECIPE, settings=sized).text(), encoding="utf-8")
    chosen = trained(path, out).settings
    assert (chosen["width"], chosen["height"]) == (128, 64)
    assert Recipe.load(recipe_path(out)).settings["width"] == 128


@pytest.mark.parametrize("change", [{"method": "lost"}, {"options": {"margin": 1.0}}, {"settings": {"warmth": 3}}])
def test_a_record_of_another_version_has_no_recipe(recipe: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    record = trained(recipe, tmp_path / "patch.safetensors")
    assert recorded(record)
    with pytest.raises(ValueError, match=r"lost|margin|warmth"):
        recorded(replace(record, **change))


def arguments(recipe: Path, *more: str, monkeypatch: pytest.MonkeyPatch) -> train.Request:
    """What the command is asked to do."""
    asked: list[train.Request] = []
    monkeypatch.setattr(train, "run", lambda args: asked.append(train.parse(args)))
    main(["train", "--recipe", str(recipe), *more])
    return asked[0]


def test_what_is_given_beside_a_recipe_wins(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--forget", "a house", "--option", "help_weight=5", "--steps", "7", "--precision", "bfloat16"]
    request = arguments(recipe, *given, monkeypatch=monkeypatch)
    assert request.prompts == Prompts(("a house",), ("",), ("a car",))
    assert request.method == Ovw(help_weight=5.0)
    assert request.settings == Settings(**{**SMALLEST, "steps": 7}, weights=METHODS["ovw"].weights)
    assert request.source.precision == "bfloat16"
    assert request.out == Path("patch.safetensors")


def test_options_of_a_recipes_method_are_not_another_methods(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = arguments(recipe, "--method", "esd", monkeypatch=monkeypatch)
    assert request.method == METHODS["esd"]()


def test_every_option_of_train_can_be_in_a_recipe() -> None:
    parser = ArgumentParser()
    train.add_arguments(parser)
    options = {name for name in vars(parser.parse_args([])) if name not in ("recipe", "recipe_options", "option")}
    assert options == {spec.name for spec in fields(Recipe)} - {"options", "settings"} | {*SETTINGS}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with."""
    with pytest.raises(SystemExit):
        main(arguments)
    [line] = capsys.readouterr().err.splitlines()
    return line


WRONG: dict[str, str] = {
    "learning-rate = 1": "'learning-rate' is unknown",
    "settings = {}": "'settings' is unknown",
    "steps = '80'": "steps is '80', not int",
    "steps = 80.0": "steps is 80.0, not int",
    "steps = true": "steps is True, not int",
    "steps = 0": "steps: 0 is out of range; choose 1 to 100000",
    "learning_rate = nan": "learning_rate: nan is out of range",
    "weights = 'all of them'": "weights: 'all of them' is unknown; choose one of",
    "forget = 'a cat'": "forget is 'a cat', not list",
    "retain = ['a', 1]": "retain[1] is 1, not str",
    "model = 3": "model is 3, not str",
    "method = 'forget'": "method: 'forget' is unknown; choose one of uce,",
    "precision = 'float16'": "precision: 'float16' is unknown; choose one of float32, bfloat16",
    "method = 'ovw'\noptions.eta = 1": "options.'eta' is unknown",
    "method = 'ovw'\noptions.help_weight = -1": "help_weight: -1 is out of range",
    "method = 'ovw'\noptions.help_weight = 'a'": "options.help_weight is 'a', not float",
    "options.help_weight = 1": "options: without a method",
    "steps = 1\nsteps = 2": 'this is no TOML (Key "steps" already exists',
    "steps = ": "this is no TOML (",
    "steps = 1979-05-27": "not int",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_recipe_is_refused_by_the_name_of_its_key(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    line = refused(["train", "--recipe", str(path), "--model", "not loaded", "--forget", "a cat"], capsys)
    assert line.startswith(f"unlearn train: {path}: ")
    assert WRONG[text] in line
    assert list(tmp_path.iterdir()) == [path]


@given(text=some.text(max_size=40) | some.text("[]{}.=\"'#\n 1a-:T_", max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_recipe_or_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        Recipe.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")


words = some.text(max_size=8).map(lambda text: " ".join(text.split())).filter(bool)
boxes = some.lists(words, max_size=3).map("\n".join)


@some.composite
def runs(draw: Any) -> tuple[Method, Prompts, Settings]:
    """Those that the command takes."""
    try:
        prompts = Prompts.parse(draw(boxes.filter(bool)), draw(boxes), draw(boxes))
    except ValueError:
        prompts = Prompts.parse('a "cat" => a \\dog\na frog', "", "é")
    chosen = {"learning_rate": draw(some.floats(1e-8, 1)), "seed": draw(some.integers(0, 2**64 - 1))}
    return METHODS[draw(some.sampled_from([*METHODS]))](), prompts, Settings(**chosen)


@given(run=runs())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(run: tuple[Method, Prompts, Settings], tmp_path: Path) -> None:
    method, prompts, asked = run
    path = tmp_path / "run.toml"
    path.write_text(training(method, prompts, asked).text(["a comment"]), encoding="utf-8", newline="\n")
    found = Recipe.load(path)
    assert found.method and METHODS[found.method](**found.options) == method
    assert Settings(**found.settings) == asked
    assert (
        Prompts.parse(*("\n".join(texts or []) for texts in (found.forget, found.overwrite, found.retain))) == prompts
    )


def test_a_file_that_is_no_written_recipe_stays(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f'model = "{MODEL}"\n', encoding="utf-8")
    line = refused(["train", "--recipe", str(recipe), "--out", str(mine.with_suffix(".safetensors"))], capsys)
    assert f"{mine}: is there already, and would be replaced by the recipe of this run" in line
    assert mine.read_text(encoding="utf-8") == f'model = "{MODEL}"\n'


def test_a_missing_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model: missing; name the base model, or a --recipe that does" in refused(
        ["train", "--forget", "a cat"], capsys
    )
