"""Write locales/en from the nodes' schemas, and say what the other languages lack.

    python scripts/translations.py

Run it after a change to a node's inputs, outputs or texts. ComfyUI's front end shows a node in the user's language by
locales/<language>/nodeDefs.json, and categories and socket types by main.json. English is made by this command; the
other languages are written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blocks import write_changed
from comfyui import PACK_NAME
from downloads import ROOT
from quickstart import in_comfyui

LOCALES = ROOT / "locales"
FILES = ("main", "nodeDefs")
ENGLISH = "en"
OWN_TYPES = "UNLEARNING_"
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
COMPILED = re.compile(r"\.(?:display_name|description|name)$")  # whose {}, @ and | the front end does not show
Texts = dict[str, Any]  # in one another, down to text


def english(nodes: Mapping[str, Any]) -> dict[str, Texts]:
    """The content of each of FILES, of what ComfyUI tells of all nodes."""
    own = {name: info for name, info in nodes.items() if info["python_module"].endswith(PACK_NAME)}
    parts, others = (
        {part for name, info in nodes.items() if (name in own) == ours for part in info["category"].split("/")}
        for ours in (True, False)
    )
    types = {kind for info in own.values() for kind in info["output"] if kind.startswith(OWN_TYPES)}
    return {
        "main": {
            "nodeCategories": {part: part for part in sorted(parts - others)},
            "dataTypes": {kind: kind for kind in sorted(types)},
        },
        "nodeDefs": {name: _node(info) for name, info in own.items()},
    }


def _node(info: Mapping[str, Any]) -> Texts:
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": _inputs(info["input"]),
        "outputs": {str(index): {"name": name, "tooltip": tooltip} for index, (name, tooltip) in enumerate(outputs)},
    }


def _inputs(groups: Mapping[str, Any]) -> Texts:
    """Under the front end's keys. Where options of a choice have an input of one name, its tooltip has a line each."""
    names: dict[str, str] = {}
    tooltips: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, option, spec in _widgets(groups):
        key = "_".join(path)
        names[key] = path[-1]
        tooltips[key][spec["tooltip"]].append(option)
    return {key: {"name": name, "tooltip": _joined(tooltips[key])} for key, name in names.items()}


def _widgets(groups: Mapping[str, Any]) -> Iterator[tuple[list[str], str, Mapping[str, Any]]]:
    """Each input with its path, the option of the choice that it belongs to, and what it is made with."""
    for group in ("required", "optional"):
        for name, (kind, spec) in groups.get(group, {}).items():
            yield [name], "", spec
            for option in spec["options"] if kind == DYNAMIC else ():
                yield from (([name, *path], option["key"], inner) for path, _, inner in _widgets(option["inputs"]))


def _joined(options: Mapping[str, list[str]]) -> str:
    if len(options) == 1:
        return next(iter(options))
    return "\n".join(f"{', '.join(names)}: {tooltip}" for tooltip, names in options.items())


def languages() -> list[str]:
    """Those that are written by hand."""
    return sorted(path.name for path in LOCALES.iterdir() if path.name != ENGLISH)


def read(language: str) -> dict[str, Texts]:
    """The content of each of FILES."""
    return {name: json.loads(_path(language, name).read_text(encoding="utf-8")) for name in FILES}


def written(texts: Mapping[str, Texts]) -> dict[Path, str]:
    """The files of English."""
    return {
        _path(ENGLISH, name): json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in texts.items()
    }


def problems(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What a language lacks or has too much, a line for each text with its key."""
    wanted, given = dict(_flat(expected)), dict(_flat(found))
    return [
        *(f"{key}: missing, in English: {wanted[key]}" for key in wanted if key not in given),
        *(f"{key}: not in the schema; remove it" for key in given if key not in wanted),
        *(f"{key}: {lack}" for key in wanted if key in given for lack in _lacks(key, wanted[key], given[key])),
    ]


def _lacks(key: str, text: str, translation: str) -> Iterator[str]:
    if not translation.strip():
        yield "empty"
    if COMPILED.search(key) and set("{}@|") & set(translation):
        yield "{, }, @ and | are not shown here; leave them out"
    if text.count("{}") != translation.count("{}"):
        yield "{} is not as often as in English"
    numbers = set(NUMBER.findall(text)) - set(NUMBER.findall(translation))
    if numbers:
        yield f"lacks {', '.join(sorted(numbers))}, in English: {text}"


def _flat(texts: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    for key, value in texts.items():
        if isinstance(value, str):
            yield f"{place}{key}", value
        else:
            yield from _flat(value, f"{place}{key}.")


def _path(language: str, name: str) -> Path:
    return LOCALES / language / f"{name}.json"


def main() -> None:
    """Run the command."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    texts = in_comfyui(lambda server: english(server.node_info()))
    for path in write_changed(written(texts)):
        print(path.relative_to(ROOT))
    for language in languages():
        for problem in problems(texts, read(language)):
            print(f"{language}: {problem}")


if __name__ == "__main__":
    main()
