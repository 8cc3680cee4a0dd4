"""Numeric options as dataclass fields that know their range and what they do."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any


def option(default: float, low: float, high: float, help: str, step: float = 0.1) -> Any:
    """A numeric option with its closed range and what it does, as a dataclass field; `step` is a widget's."""
    return field(default=default, metadata={"low": low, "high": high, "step": step, "help": help})


def check_ranges(options: Any) -> None:
    """Raises ValueError when a field made by `option` is outside its range."""
    for spec in fields(options):
        if spec.metadata:
            value, low, high = getattr(options, spec.name), spec.metadata["low"], spec.metadata["high"]
            if not low <= value <= high:
                raise ValueError(f"{spec.name}: {value} is out of range; choose {low} to {high}")
