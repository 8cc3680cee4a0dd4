"""Tensors in nested containers, in the order in which they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """New containers and dataclasses with every tensor changed, in order."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(entry, change) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        entries = [mapped(entry, change) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{spec.name: mapped(getattr(value, spec.name), change) for spec in fields(value)})
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested containers and dataclasses, in order."""
    found: list[Tensor] = []
    mapped(value, found.append)
    return found
