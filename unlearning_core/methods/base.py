"""What a gradient method is: its options as fields, a loss on the forget latents, and how much of L_help to add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor

from ..bank import Batch

HELP = "weight of L_help, which holds the retain prompts; 0 switches it off"


def option(default: float, low: float, high: float, help: str, step: float = 0.1) -> Any:
    """A numeric option with its closed range and what it does, as a dataclass field."""
    return field(default=default, metadata={"low": low, "high": high, "step": step, "help": help})


def check_ranges(options: Any) -> None:
    """Raises ValueError when a field made by `option` is outside its range."""
    for spec in fields(options):
        if spec.metadata:
            value, low, high = getattr(options, spec.name), spec.metadata["low"], spec.metadata["high"]
            if not low <= value <= high:
                raise ValueError(f"{spec.name}: {value} is out of range; choose {low} to {high}")


@dataclass(frozen=True)
class GradientMethod(ABC):
    """An unlearning objective. A subclass adds its own options as fields; one outside its range is a ValueError."""

    label: ClassVar[str]
    weights: ClassVar[str]  # the selection of weights that the reference trains
    follows_overwrite: ClassVar[bool]  # whether half of the forget trajectories follow the overwrite prompt

    help_weight: float = option(0.0, 0.0, 1000.0, HELP)

    def __post_init__(self) -> None:
        check_ranges(self)

    @abstractmethod
    def forget_loss(self, e: Tensor, forget: Batch) -> Tensor:
        """The loss of the trained model's noise predictions e [B, C, H, W] at the forget latents."""
