"""Unlearn From Recipe: a saved patch's recipe makes the same patch again, here and by the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from comfyui import PromptError, Server
from graphs import Graph, node, saved_patch, training

from unlearning_core.methods import METHODS
from unlearning_core.patch import UnlearningPatch
from unlearning_core.recipe import Recipe, recipe_path


def repeating(recipe_file: str, prefix: str = "repeated") -> Graph:
    return {
        "load": node("LoadTinyT2I"),
        "repeat": node("UnlearnFromRecipe", model=["load", 0], clip=["load", 1], recipe_file=recipe_file),
        "save": node("SaveUnlearningPatch", patch=["repeat", 1], filename_prefix=prefix),
    }


def written(server: Server, name: str, text: str) -> str:
    """A recipe's file in output/loras."""
    path = server.base_directory / "output" / "loras" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_beside_a_patch_makes_it_again_to_the_last_bit(server: Server, method: str) -> None:
    forget = "a cat face => a dog face\nan apple"
    graph = training(f"recipe_{method}", method=method, forget_prompts=forget, overwrite_prompt="")
    first = saved_patch(server, server.run(graph))
    recipe = recipe_path(first)
    again = saved_patch(server, server.run(repeating(recipe.name)))
    assert again.read_bytes() == first.read_bytes()
    assert recipe_path(again).read_text(encoding="utf-8") == recipe.read_text(encoding="utf-8")


def test_a_recipe_of_a_preset_is_that_preset(server: Server) -> None:
    text = 'preset = "quick"\nforget = ["a cat face"]\nwidth = 128\nheight = 128\n'
    patch = UnlearningPatch.load(saved_patch(server, server.run(repeating(written(server, "preset.toml", text)))))
    assert (patch.record.method, patch.record.settings["preset"]) == ("uce", "quick")
    assert patch.record.wordings


def test_the_command_takes_the_recipe_of_a_node(server: Server) -> None:
    run = Recipe.load(recipe_path(saved_patch(server, server.run(training("for command"))))).run
    assert run.prompts.pairs == (("a cat face", "a dog face"),)
    assert run.settings.steps == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('method = "ovw"', "forget prompts: empty"),
        ('forget = ["a cat"]', "method: missing"),
        ('method = "magic"', "method: 'magic' is unknown"),
        ('method = "uce"\nforget = ["a cat"]\nweights = "all"', "text"),
        ("steps = ", "this is no TOML"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused_before_anything_runs(server: Server, text: str, message: str) -> None:
    name = written(server, "wrong.toml", text)
    with pytest.raises(PromptError) as refused:
        server.run(repeating(name))
    assert message in str(refused.value) and "wrong.toml" in str(refused.value)


def test_recipes_are_listed_and_patches_are_not(server: Server) -> None:
    written(server, "listed.toml", 'method = "uce"\nforget = ["a cat"]')
    spec = server._request("/object_info/UnlearnFromRecipe")["UnlearnFromRecipe"]["input"]["required"]["recipe_file"]
    names = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
    assert "listed.toml" in names and {Path(name).suffix for name in names} == {".toml"}
