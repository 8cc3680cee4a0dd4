"""What is made of the nodes' schemas for a translator, and what is found in a translation."""

from __future__ import annotations

import re
from typing import Any

import pytest
from comfyui import PACK_NAME
from downloads import ROOT
from translations import english, problems

NUMBER = ["FLOAT", {"tooltip": "How much. Range 0 to 1."}]
CHOICE = [
    "COMFY_DYNAMICCOMBO_V3",
    {
        "tooltip": "Which.",
        "options": [
            {"key": "a", "inputs": {"required": {"x": ["INT", {"tooltip": "Steps."}], "y": NUMBER}}},
            {"key": "b", "inputs": {"required": {"x": ["INT", {"tooltip": "Seed."}]}, "optional": {"y": NUMBER}}},
        ],
    },
]
NODES = {
    "Own": {
        "python_module": f"custom_nodes.{PACK_NAME}",
        "display_name": "Own Node",
        "description": "Does.",
        "category": "own/loaders",
        "input": {"required": {"method": CHOICE}, "optional": {"text": ["STRING", {"tooltip": "As {}."}]}},
        "output": ["MODEL", "UNLEARNING_PATCH"],
        "output_name": ["MODEL", "PATCH"],
        "output_tooltips": ["One.", "Another."],
    },
    "Stock": {"python_module": "nodes", "category": "loaders", "output": []},
}


def test_keys_are_the_front_ends() -> None:
    texts = english(NODES)
    assert texts["main"] == {
        "nodeCategories": {"own": "own"},
        "dataTypes": {"UNLEARNING_PATCH": "UNLEARNING_PATCH"},
    }
    assert texts["nodeDefs"].keys() == {"Own"}
    assert texts["nodeDefs"]["Own"]["inputs"] == {
        "method": {"name": "method", "tooltip": "Which."},
        "method_x": {"name": "x", "tooltip": "a: Steps.\nb: Seed."},
        "method_y": {"name": "y", "tooltip": "How much. Range 0 to 1."},
        "text": {"name": "text", "tooltip": "As {}."},
    }
    assert texts["nodeDefs"]["Own"]["outputs"]["1"] == {"name": "PATCH", "tooltip": "Another."}


ENGLISH = {"a": {"name": "Name", "tooltip": "As {}. Range 0 to 1e-06."}}
GOOD = {"name": "N", "tooltip": "{} 0 1e-06"}


@pytest.mark.parametrize(
    ("translation", "found"),
    [
        ({"a": GOOD}, []),
        ({"a": {"name": "N"}}, ["a.tooltip: missing, in English: As {}. Range 0 to 1e-06."]),
        ({"a": GOOD, "b": {"name": "N"}}, ["b.name: not in the schema; remove it"]),
        ({"a": {**GOOD, "name": " "}}, ["a.name: empty"]),
        ({"a": {**GOOD, "name": "N|"}}, ["a.name: {, }, @ and | are not shown here; leave them out"]),
        ({"a": {**GOOD, "tooltip": "0 1e-06"}}, ["a.tooltip: {} is not as often as in English"]),
        (
            {"a": {**GOOD, "tooltip": "{} 0 1e-05"}},
            ["a.tooltip: lacks 1e-06, in English: As {}. Range 0 to 1e-06."],
        ),
    ],
)
def test_problems_name_their_key(translation: dict[str, Any], found: list[str]) -> None:
    assert problems(ENGLISH, translation) == found


def test_panels_say_the_same_in_every_language() -> None:
    script = (ROOT / "nodes" / "web" / "texts.js").read_text(encoding="utf-8")
    languages = dict(re.findall(r"^  (\w+): \{\n(.*?)^  \},", script, re.DOTALL | re.MULTILINE))
    texts = {name: dict(re.findall(r'^    (\w+): "(.*)",$', block, re.MULTILINE)) for name, block in languages.items()}
    assert texts.keys() == {path.name for path in (ROOT / "locales").iterdir()}
    for own in texts.values():
        assert own.keys() == texts["en"].keys()
        assert all(
            re.findall(r"\{\w+\}", own[key]) == re.findall(r"\{\w+\}", text) for key, text in texts["en"].items()
        )
