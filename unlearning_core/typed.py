"""JSON from a file into dataclasses, each value of the type that its field is declared with."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from reprlib import repr as short
from typing import Any, TypeVar

T = TypeVar("T")

DEEPEST = 32  # lists and dictionaries in one another
LONGEST_NUMBER = 20  # digits: 64 bits


def parse(text: str) -> Any:
    """A JSON value of finite numbers, text that can be written, and at most DEEPEST levels. Raises ValueError."""
    try:
        value = json.loads(text, parse_constant=_not_finite, parse_float=_number, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_depth(value, DEEPEST)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character") from error
    return value


def read(kind: type[T], value: Any, place: str = "") -> T:
    """A dataclass from the dictionary of its fields, all the way down; `place` is what it is called in messages.

    Declared types are str, int, float, bool, Any, dataclasses, lists, dictionaries by text, and unions. Raises
    ValueError, which names the field, for one that is unknown, missing or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{place or 'it'} is {short(value)}, not a dictionary")
    within = f"{place}." if place else ""
    specs = {spec.name: spec for spec in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(value.keys() - specs.keys())
    if unknown:
        raise ValueError(f"{within}{short(unknown[0])} is unknown")
    missing = [name for name, spec in specs.items() if name not in value and _required(spec)]
    if missing:
        raise ValueError(f"{within}{missing[0]} is missing")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _typed(hints[name], entry, f"{within}{name}") for name, entry in value.items()})


def _required(spec: dataclasses.Field[Any]) -> bool:
    return spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING


def _typed(hint: Any, value: Any, place: str) -> Any:
    """The value as the declared type."""
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return read(typing.cast("type[Any]", hint), value, place)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        return _typed(next(argument for argument in arguments if argument is not types.NoneType), value, place)
    if origin is list and isinstance(value, list):
        return [_typed(arguments[0], entry, f"{place}[{index}]") for index, entry in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _typed(arguments[1], entry, f"{place}[{short(key)}]") for key, entry in value.items()}
    # Of JSON's types bool is an int in Python, and an int can be what was a float: 3 for 3.0.
    accepted = (float, int) if hint is float else (origin or hint,)
    if type(value) not in accepted:
        raise ValueError(f"{place} is {short(value)}, not {getattr(hint, '__name__', hint)}")
    return value


def _check_depth(value: Any, left: int) -> None:
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if entries is not None:
        if left == 0:
            raise ValueError("it is nested too deeply")
        for entry in entries:
            _check_depth(entry, left - 1)


def _not_finite(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no number")


def _number(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text[:LONGEST_NUMBER])


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(text)} digits")
    return int(text)
