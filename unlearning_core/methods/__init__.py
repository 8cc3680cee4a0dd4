"""The registry: the method names that nodes, patches and the command line use."""

from __future__ import annotations

from importlib import import_module

from ..registry import only_subclass
from .base import ClosedForm, GradientMethod, Method

NAMES = (  # a module each; the first is the default: docs/integrity.md compares them
    "uce",
    "nullspace",
    "ovw",
    "saddle",
    "esd",
    "salun",
    "sa",
    "ca",
)
METHODS: dict[str, type[Method]] = {name: only_subclass(import_module(f".{name}", __name__), Method) for name in NAMES}

__all__ = ["METHODS", "ClosedForm", "GradientMethod", "Method", "name_of"]


def name_of(method: Method) -> str:
    """The registry's name of a method."""
    return next(name for name, kind in METHODS.items() if type(method) is kind)
