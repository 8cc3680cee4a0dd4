"""What a gradient method is: options, a loss on the forget latents, and how much of L_help to add."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..bank import Batch


def option(default: float, low: float, high: float, help: str, step: float = 0.1) -> Any:
    """A numeric option of a method, with its closed range and what it does, in one dataclass field."""
    return field(default=default, metadata={"low": low, "high": high, "step": step, "help": help})


@dataclass(frozen=True)
class Options:
    """A method's options; a subclass adds its own. Raises ValueError for a value outside its range."""

    help_weight: float = option(0.0, 0.0, 1000.0, "weight of L_help, which holds the retain prompts; 0 switches it off")

    def __post_init__(self) -> None:
        for spec in fields(self):
            value, low, high = getattr(self, spec.name), spec.metadata["low"], spec.metadata["high"]
            if not low <= value <= high:
                raise ValueError(f"{spec.name}: {value} is out of range; choose {low} to {high}")


class GradientMethod(Protocol):
    """An unlearning objective; one file and one line of the registry each."""

    label: ClassVar[str]
    options_type: ClassVar[type[Options]]
    weights: ClassVar[str]  # the selection of weights that the reference trains
    follows_overwrite: ClassVar[bool]  # whether half of the forget trajectories follow the overwrite prompt
    options: Options

    def __init__(self, options: Any) -> None: ...

    def forget_loss(self, e: Tensor, forget: Batch) -> Tensor:
        """The loss of the trained model's noise predictions e [B, C, H, W] at the forget latents."""
        ...
