"""The registry: the method names that nodes, patches and the command line use."""

from __future__ import annotations

from .base import GradientMethod
from .esd import Esd
from .ovw import Ovw

METHODS: dict[str, type[GradientMethod]] = {
    "ovw": Ovw,
    "esd": Esd,
}

__all__ = ["METHODS", "GradientMethod"]
