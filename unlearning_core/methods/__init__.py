"""The registry: the method names that nodes, patches and the command line use."""

from __future__ import annotations

from .base import ClosedForm, GradientMethod, Method
from .ca import Ca
from .esd import Esd
from .nullspace import NullSpace
from .ovw import Ovw
from .sa import Sa
from .saddle import Saddle
from .salun import Salun
from .uce import Uce

# The first is the default: docs/integrity.md compares them.
METHODS: dict[str, type[Method]] = {
    "uce": Uce,
    "nullspace": NullSpace,
    "ovw": Ovw,
    "saddle": Saddle,
    "esd": Esd,
    "salun": Salun,
    "sa": Sa,
    "ca": Ca,
}

__all__ = ["METHODS", "ClosedForm", "GradientMethod", "Method"]
