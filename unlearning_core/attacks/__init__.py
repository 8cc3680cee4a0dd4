"""Whether a concept stays forgotten: a registry of attacks, as methods have one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, fields
from importlib import import_module
from typing import Any

from ..prompts import quoted
from ..registry import only_subclass
from .base import Attack

NAMES = (  # a module each, in the order of tables
    "plain",
    "wording",
    "guidance",
    "img2img",
    "embedding",
    "prompt_search",
    "relearning",
)
ATTACKS: dict[str, type[Attack]] = {name: only_subclass(import_module(f".{name}", __name__), Attack) for name in NAMES}

__all__ = ["ATTACKS", "Attack", "parse_attacks"]


def parse_attacks(lines: Iterable[str]) -> dict[str, Attack]:
    """Attacks by name, from lines such as `relearning steps=5,20 rates=0.001`: options that are left out have defaults.

    Raises ValueError for no line, an unknown attack or option, a second line for one attack, and a value that is no
    number or out of range.
    """
    found: dict[str, Attack] = {}
    for line in lines:
        name, *options = line.split()
        if name not in ATTACKS:
            raise ValueError(f"attacks: {quoted(name)} is unknown; choose from {', '.join(ATTACKS)}")
        if name in found:
            raise ValueError(f"attacks: {name} stands there twice; write all its options on one line")
        specs = {spec.name: spec for spec in fields(ATTACKS[name])}
        try:
            found[name] = ATTACKS[name](**dict(_option(each, specs) for each in options))
        except ValueError as error:
            raise ValueError(f"attacks: {name}: {error}") from error
    if not found:
        raise ValueError(f"attacks: empty; write at least one of {', '.join(ATTACKS)}, one per line")
    return found


def _option(text: str, specs: dict[str, Field[Any]]) -> tuple[str, Any]:
    """An option's name and value, of `name=value` or `name=value,value`."""
    name, equals, value = text.partition("=")
    if not equals or name not in specs:
        known = f"choose from {', '.join(specs)}" if specs else "it has none"
        raise ValueError(f"{quoted(text)} is no option of it of the form name=value; {known}")
    default: Any = specs[name].default
    kind = type(default[0]) if isinstance(default, tuple) else type(default)
    try:
        values = tuple(kind(part) for part in value.split(","))
    except ValueError as error:
        raise ValueError(f"{name}: {quoted(value)} is no {kind.__name__}") from error
    if isinstance(default, tuple):
        return name, values
    if len(values) > 1:
        raise ValueError(f"{name}: {quoted(value)} is more than one number")
    return name, values[0]
