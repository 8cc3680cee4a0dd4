"""Which methods have something in common, by name: tooltips and documentation say it from here."""

from __future__ import annotations

from collections.abc import Callable

from . import METHODS, ClosedForm, GradientMethod, Method


def closed_forms() -> list[str]:
    """They solve for the weights, and so use no setting of training and no latents."""
    return _named(lambda kind: issubclass(kind, ClosedForm))


def ignoring_overwrite() -> list[str]:
    """They hold the overwrite prompts, but do not aim at them."""
    return _named(lambda kind: not kind.uses_overwrite)


def ignoring_retain() -> list[str]:
    """They use the retain prompts by L_help alone."""
    return _named(lambda kind: issubclass(kind, GradientMethod) and not kind.uses_retain)


def holding_numbers() -> list[str]:
    """They need memory for every number of the selected weights, whatever the rank."""
    return _named(lambda kind: issubclass(kind, GradientMethod) and max(kind.preparing, kind.prepared) > 0)


def _named(fits: Callable[[type[Method]], bool]) -> list[str]:
    return [name for name, kind in METHODS.items() if fits(kind)]
