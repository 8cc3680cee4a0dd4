"""Numeric options as dataclass fields that know their range and what they do."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any


def option(default: float, low: float, high: float, help: str, step: float = 0.1) -> Any:
    """A numeric option with its closed range and what it does, as a dataclass field; `step` is a widget's."""
    return field(default=default, metadata={"low": low, "high": high, "step": step, "help": help})


def series(default: tuple[float, ...], low: float, high: float, help: str) -> Any:
    """As `option`, of several numbers, each in the range."""
    return option(default, low, high, help)  # type: ignore[arg-type]


def check_ranges(options: Any) -> None:
    """Raises ValueError when a field made by `option` or `series` is outside its range, or has no number."""
    for spec in fields(options):
        if spec.metadata:
            value, low, high = getattr(options, spec.name), spec.metadata["low"], spec.metadata["high"]
            values = value if isinstance(value, tuple) else (value,)
            if not values:
                raise ValueError(f"{spec.name}: empty; write at least one number, {low} to {high}")
            for one in values:
                if not low <= one <= high:
                    raise ValueError(f"{spec.name}: {one} is out of range; choose {low} to {high}")
