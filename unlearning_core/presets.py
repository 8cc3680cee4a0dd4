"""How thoroughly to forget, in one word: each preset's values and texts are here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .methods import METHODS, Method
from .settings import CUSTOM, Settings

FREE = (  # what suits the model and the machine
    *("learning_rate", "seed", "width", "height"),
    *("batch_size", "micro_batch", "runs", "run_steps", "run_cfg"),
)
FREE_OF_LORA = ("rank", "alpha")  # and of a method whose change can be one


@dataclass(frozen=True)
class Preset:
    """A method with its options, and the settings that differ from their defaults."""

    name: str
    summary: str  # what it costs and what it resists, in one line
    method: str  # its name in the registry
    options: Mapping[str, float] = field(default_factory=dict)  # of the method, beside its defaults
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of `Settings`
    steps_each: int = 0  # training steps for each forget prompt, where these are more than its steps

    @property
    def kind(self) -> type[Method]:
        """The method's class."""
        return METHODS[self.method]

    @property
    def objective(self) -> Method:
        """The method with its options."""
        return self.kind(**self.options)

    @property
    def free(self) -> tuple[str, ...]:
        """The settings that it leaves to the user."""
        return (*FREE, *FREE_OF_LORA) if self.kind.low_rank else FREE

    def values(self, forget: int) -> dict[str, Any]:
        """Every setting that it decides, all but free ones, for so many forget prompts."""
        defaults = asdict(Settings(weights=self.kind.weights, preset=self.name))
        decided = {name: value for name, value in {**defaults, **self.settings}.items() if name not in self.free}
        return {**decided, "steps": max(decided["steps"], self.steps_each * forget)}


PROTECTED = {"protect": 0.01, "wordings": 8}
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "quick",
            "seconds, no training; other names and wordings are gone too, who fits an embedding gets it back",
            method="uce",
            options={"retain_weight": 100.0},
            settings={"wordings": 8},
        ),
        Preset(
            "balanced",
            "a short training; resists what quick does, and forgets styles more surely",
            method="ovw",
            options={"help_weight": 5.0},
            settings={**PROTECTED, "held_wordings": 8, "steps": 80},
            steps_each=8,
        ),
        Preset(
            "thorough",
            "a long training of all weights against texts that look for a way back; changes other pictures most",
            method="ovw",
            options={"help_weight": 20.0},
            settings={**PROTECTED, "steps": 500, "weights": "all", "adversaries": 24, "retain_ratio": 4},
        ),
    )
}
START = "balanced"  # of a node that is placed anew
CHOICES = (*PRESETS, CUSTOM)
SUMMARIES = {**{name: preset.summary for name, preset in PRESETS.items()}, CUSTOM: "the values that are given"}


def preset_named(name: str) -> Preset | None:
    """The preset of a name; None for CUSTOM, which leaves all to what is given. Raises ValueError for another one."""
    if name not in CHOICES:
        raise ValueError(f"preset: {name!r} is unknown; choose one of {', '.join(CHOICES)}")
    return PRESETS.get(name)
