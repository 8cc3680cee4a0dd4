"""Registries of one class a module."""

from __future__ import annotations

from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def only_subclass(module: ModuleType, base: type[T]) -> type[T]:
    """The one subclass of `base` that a module defines. Raises ValueError when there is another number of them."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"{module.__name__} defines {len(found)} subclasses of {base.__name__}; a module has one")
    return found[0]
